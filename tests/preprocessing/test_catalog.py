"""Pairs, queries and known items of a catalog alone, and the teachers that a plugin may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from estudio_core.errors import ConfigurationError, DataError
from estudio_core.preprocessing.catalog.known_items import divide, known_items, training_queries
from estudio_core.preprocessing.catalog.pairs import CatalogPair, cut, words_of
from estudio_core.preprocessing.catalog.query_writers import QueryWriter, WordSamples
from estudio_core.preprocessing.catalog.teachers import (
    CrossEncoderScorer,
    PairScorer,
    Seq2SeqWriter,
    scored,
    scorer_of,
    writer_of,
)
from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from tests.small_model import minilm_folder

FIELDS = ItemPreprocessor(fields=("title", "about", "maker"), separator=". ", field_names=False)
LAMP = {"title": "Desk lamp", "about": "Folds flat, charges by USB.", "maker": "Lumo of Berlin", "price": "12 EUR"}


def test_a_field_is_asked_and_the_others_are_what_is_left() -> None:
    pairs = [cut(str(number), LAMP, FIELDS) for number in range(200)]
    rests = {
        "Desk lamp": "Folds flat, charges by USB.. Lumo of Berlin",
        "Folds flat, charges by USB.": "Desk lamp. Lumo of Berlin",
        "Lumo of Berlin": "Desk lamp. Folds flat, charges by USB.",
    }
    assert {(pair.asked, pair.rest) for pair in pairs if pair} == {
        *rests.items()
    }  # never the price: nobody finds by it
    assert 80 < sum(pair is not None and pair.asked == "Desk lamp" for pair in pairs) < 120
    assert pairs[7] == cut("7", LAMP, FIELDS)
    assert {pair.asked for n in range(50) if (pair := cut(str(n), LAMP, FIELDS, title=True))} == {"Desk lamp"}


def test_a_text_is_cut_by_sentences_else_by_words() -> None:
    whole = ItemPreprocessor()
    assert cut("7", "A desk lamp. It folds flat.", whole, title=True) == CatalogPair(
        "7", "A desk lamp.", "It folds flat."
    )
    words = [f"w{number}" for number in range(40)]
    long = cut("7", " ".join(words), whole)
    assert long is not None
    run = long.asked.split()
    assert len(run) == 12
    start = words.index(run[0])
    assert words[start : start + 12] == run
    assert long.rest.split() == words[:start] + words[start + 12 :]
    short = cut("7", "oak desk lamp with a folding arm", whole)
    assert short is not None
    assert short.asked == "oak desk lamp with a folding arm"
    assert 2 <= len(short.rest.split()) < 7
    assert cut("7", "lamp", whole) is None


def test_what_a_transform_makes_is_cut_as_a_text() -> None:
    shouted = ItemPreprocessor(transform=lambda item: f"{item['title']}. {item['about']}".upper())
    pair = cut("7", LAMP, shouted, title=True)
    assert pair == CatalogPair("7", "DESK LAMP.", "FOLDS FLAT, CHARGES BY USB.")


def test_word_samples_are_short_repeat_themselves_and_prefer_rare_words() -> None:
    catalog = [f"usb cable model {number % 50} colour{number % 5}" for number in range(100)]
    writer = WordSamples(catalog)
    (queries,) = writer.write([catalog[7]], 30)
    assert [queries] == WordSamples(catalog).write([catalog[7]], 30)
    assert len(queries) == len({*queries})
    right = [query for query in queries if {*query.split()} <= {*words_of(catalog[7])}]
    assert len(queries) // 2 < len(right) < len(queries)  # the others are misspelt
    assert {len(query.split()) for query in right} == {2, 3, 4}
    everywhere, rare = (sum(word in query.split() for query in right) for word in ("cable", "7"))
    assert rare > everywhere
    assert any(query.split() != sorted(query.split(), key=catalog[7].split().index) for query in right)
    assert WordSamples(["only here", "other words"]).write(["only here"], 5) == [[]]  # no word that two texts have


def test_what_is_judged_by_has_nothing_in_common_with_what_is_learned_from() -> None:
    items = {str(n): {"title": f"lamp {n % 60} of oak", "about": f"folds {n % 60} times by hand"} for n in range(300)}
    titles = [pair for key, item in items.items() if (pair := cut(key, item, FIELDS, title=True))]
    pairs = [pair for key, item in items.items() if (pair := cut(key, item, FIELDS))]
    known, learned = divide(titles, pairs, 40)
    assert len(known) == 40
    texts = {text for pair in known for text in (pair.asked, pair.rest)}
    assert learned
    assert texts.isdisjoint(text for pair in learned for text in (pair.asked, pair.rest))
    assert len(divide(titles, pairs, 1000)[0]) == 60  # a fifth at most
    found = known_items(known, [FIELDS(item) for item in items.values()])
    assert {item.object_id for item in found} <= {pair.object_id for pair in known}


def test_a_query_all_of_whose_words_are_left_judges_nothing() -> None:
    told, untold = CatalogPair("1", "oak lamp", "a lamp made of oak"), CatalogPair("2", "oak lamp", "a light of wood")
    assert [item.object_id for item in known_items([told, untold], ["oak lamp", "oak lamp"])] == ["2"]


def test_a_query_of_a_known_item_is_never_trained_on_however_it_is_spelt() -> None:
    class Echo:
        def write(self, texts: Sequence[str], count: int) -> list[list[str]]:
            return [[text.upper(), "another query", " ", "a third"][: count + 2] for text in texts]

    known = known_items([CatalogPair("1", "oak lamp", "a light")], ["oak lamp", "oak lamp"])
    (query,) = [item.query for item in known]
    assert training_queries({"5": query}, Echo(), 2, known) == {"5": ["another query", "a third"]}


def test_a_teacher_is_an_object_a_class_or_a_function() -> None:
    class Scorer:
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [float(len(text)) for _, text in pairs]

    for given in (Scorer(), Scorer, lambda: Scorer()):
        assert scored(scorer_of(given), [("q", "four")]) == [4.0]
    assert writer_of(WordSamples(["a b", "a b"])).write(["a b"], 1)
    with pytest.raises(ConfigurationError, match=r"pair_scorer=\.\.\.\) gives int: give an object with a method score"):
        scorer_of(3)


def test_a_teacher_that_does_not_answer_every_pair_is_refused() -> None:
    class Broken:
        def __init__(self, answer: list[float]) -> None:
            self.answer = answer

        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return self.answer

    for answer in ([1.0], [1.0, float("nan")]):
        with pytest.raises(DataError, match="one finite number for each is needed"):
            scored(Broken(answer), [("a", "b"), ("a", "c")])


def test_a_cross_encoder_scores_by_its_logits(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(2)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = CrossEncoderScorer(str(tmp_path), device="cpu")
    assert isinstance(scorer, PairScorer)
    pairs = [("desk lamp", "folds flat"), ("usb cable", "a metre")]
    given = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert scorer.score(pairs) == pytest.approx(model(**given).logits[:, 0].tolist(), abs=1e-4)


def test_a_sequence_to_sequence_model_writes_the_same_queries_again(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    torch.manual_seed(2)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = Seq2SeqWriter(str(tmp_path), max_new_tokens=4, batch_size=2)
    assert isinstance(writer, QueryWriter)
    state = torch.random.get_rng_state()
    found = writer.write(["desk lamp", "usb cable", "rug"], 3)
    assert [1 <= len(queries) <= 3 for queries in found] == [True, True, True]
    assert all(query.strip() for queries in found for query in queries)
    assert found == writer.write(["desk lamp", "usb cable", "rug"], 3)
    assert torch.equal(state, torch.random.get_rng_state())  # the training's own draws stay what they are
