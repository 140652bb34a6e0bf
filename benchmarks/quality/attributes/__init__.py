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
(*readable*). `python -m benchmarks.quality.attributes`, nDCG@10 on development queries (BM25 with k1 1.2 and b 0.75,
words as they are; all-MiniLM-L6-v2; similarity + 0.02 times BM25; Intel Xeon with avx512_bf16, 2 cores, 24 GiB):

| 6,000 products | BM25 | base model | base + 0.02 BM25 | readable |
|---|---|---|---|---|
| combinations | 0.394 | 0.280 | 0.376 | 5.0 % |
| words | 0.368 | 0.249 | 0.362 | 0.2 % |
| brands | 0.399 | 0.339 | 0.402 | 6.1 % |

| 15,205 products (`--products 0`) | BM25 | base model | base + 0.02 BM25 | readable |
|---|---|---|---|---|
| combinations | 0.334 | 0.230 | 0.336 | 6.9 % |
| words | 0.308 | 0.198 | 0.303 | 0.2 % |
| brands | 0.385 | 0.313 | 0.386 | 4.6 % |

There is something to learn that words cannot say: with the judgments themselves as pairs (in-batch softmax, temperature
0.05, rate 2e-4, half of the layers frozen), the base model alone came from 0.280 / 0.249 / 0.339 to 0.71 / 0.67 / 0.65
in 400 steps of 48 on the smaller set (a prototype, one seed).
"""

from benchmarks.quality.attributes.corpus import GROUPS, attributes

__all__ = ["GROUPS", "attributes"]
