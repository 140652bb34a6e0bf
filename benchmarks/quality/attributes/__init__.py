"""Attribute queries over the demo's catalog, with complete judgments.

What an Icecat product is, its fields and its title say: brand, kind, colour, sizes, printers that it fits, features
(`records`, `readers`, `kinds`). A query asks for a kind and up to three other values in people's words: orders,
abbreviations, synonyms, misspellings (`queries`, `vocabulary`, `words.toml`). It names the kind always, because a
product of none of our kinds may have the other values. Relevance follows from the values, for every product:
3 has all; 2 has all but for a length or a capacity that is within a tenth; 1 is of the kind and has all but one of the
other values (`relevance`). 1 to 50 products are relevant with 3 or 2. Of 19,406 products, 9,983 are of a kind that is
asked for, 5,222 are surely of none; 4,201 about which the rules are in doubt are left out.

Held-out queries are of three groups (`corpus.GROUPS`), for development and test apart: *combinations* have values that
training knows, two of which no training query names together; *words* have a word besides (abbreviation, synonym,
misspelling) that is in no training query; *brands* name a brand that no training query names (its products are
indexed, and other training queries may show them). Everything is drawn by hash and the same in every process.

**Texts do not give the answer away word for word.** A text is the title without everything that says one of the
product's values (`texts.rest_of`: at most 7 words, such as its model), and then the values, half of them in the plain
word, a fifth by another word that queries use, the rest as no query asks ("blk" for NOIR, "6ft" for 183 cm, "8 gig" for
8192 MB, "laptop" for portable PC); a brand is left out of six in ten texts where a series implies it (LaserJet), and a
cartridge that fits dozens of printers names four. So one text seldom has all the words of a query that it answers
(*readable*). `python -m benchmarks.quality.attributes`, nDCG@10 on development queries (BM25 with k1 1.2 and b 0.75, as
PostgreSQL reads words in English; all-MiniLM-L6-v2, 64 tokens; Intel Xeon with avx512_bf16, 2 cores, 24 GiB):

| 6,000 products | BM25 | base model | base + 0.12 · BM25 | readable |
|---|---|---|---|---|
| combinations | 0.387 | 0.280 | 0.366 | 4.8 % |
| words | 0.374 | 0.249 | 0.349 | 0.2 % |
| brands | 0.384 | 0.339 | 0.392 | 5.7 % |

| 15,205 products (`--products 0`) | BM25 | base model | base + 0.12 · BM25 | readable |
|---|---|---|---|---|
| combinations | 0.350 | 0.229 | 0.319 | 6.5 % |
| words | 0.314 | 0.197 | 0.286 | 0.5 % |
| brands | 0.362 | 0.312 | 0.372 | 4.2 % |

The default weight is too small for such queries: 0.2 gives 0.387, 0.367 and 0.402 on the smaller set, 0.3 gives 0.394,
0.387 and 0.406. On test queries of the smaller set (`--test`) the sum is above both lanes: 0.340, 0.341 and 0.484, with
0.325, 0.338 and 0.450 by BM25.

There is something to learn that words cannot say: with the judgments themselves as pairs (in-batch softmax, temperature
0.05, rate 2e-4, half of the layers frozen), the base model alone came from 0.280 / 0.249 / 0.339 to 0.71 / 0.67 / 0.65
in 400 steps of 48 on the smaller set (a prototype, one seed).
"""

from benchmarks.quality.attributes.corpus import GROUPS, attributes

__all__ = ["GROUPS", "attributes"]
