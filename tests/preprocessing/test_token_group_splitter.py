from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estudio_core.errors import ConfigurationError, ItemError, ModelError
from estudio_core.preprocessing.splitters import DummySentenceSplitter, ItemSplitter, TokenGroupTextSplitter
from estudio_core.preprocessing.splitters.token_group_splitter import token_groups

WORDS = st.sampled_from(
    [
        "lamp",
        "usb-c",
        "internationalization",
        "x" * 30,
        "naïve",
        "größe",
        "今日は晴れ。",
        "🙂",
        "Привет",
        "3.5",
        "end.",
        "\n",
        "!",
        "\u0301",
        "\u200b",
        "\x00",
        "- item\n",
        "q" * 120,
        "```\n",
        "a.b.c.d.e",
    ]
)


@pytest.fixture(scope="module")
def tokenizer(minilm_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """A tokenizer of single bytes: several tokens share one character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def splitter(tokenizer: Any, max_tokens: int | None = 12, **options: Any) -> TokenGroupTextSplitter:
    return TokenGroupTextSplitter(tokenizer, DummySentenceSplitter(), max_tokens, **options)


def length(tokenizer: Any, text: str, prefix: str = "") -> int:
    return len(tokenizer(prefix + text)["input_ids"])


def squeezed(text: str) -> str:
    return "".join(text.split())


def sentence(words: int) -> str:
    return "Lamp " * (words - 1) + "."


def test_blocks_are_packed_greedily_and_an_overflowing_one_starts_the_next_part(tokenizer: Any) -> None:
    text = "\n".join([sentence(300), sentence(300), sentence(100)])
    parts = splitter(tokenizer, 512)(text)
    assert [length(tokenizer, part) - 2 for part in parts] == [300, 400]


def test_a_text_that_fits_is_one_part_as_it_is(tokenizer: Any) -> None:
    assert splitter(tokenizer)("  One lamp.\n\nTwo  lamps. ") == ["One lamp.\n\nTwo  lamps."]


def test_a_long_block_is_cut_between_words_and_its_rest_starts_the_next_part(tokenizer: Any) -> None:
    parts = splitter(tokenizer, 12)("Short one. " + sentence(14) + " Last one.")
    assert parts == ["Short one.", ("Lamp " * 10).strip(), "Lamp Lamp Lamp . Last one."]


def test_a_word_longer_than_a_part_is_cut_inside_and_nothing_is_lost(tokenizer: Any) -> None:
    word = "internationalizationofelectromagneticcounterrevolutionaries"
    parts = splitter(tokenizer, 5)(f"see {word} now")
    assert squeezed("".join(parts)) == f"see{word}now"
    assert all(length(tokenizer, part) <= 5 for part in parts)


def test_special_tokens_and_prefix_are_counted(tokenizer: Any) -> None:
    text = ("lamp " * 10).strip()
    assert splitter(tokenizer, 12)(text) == [text]
    assert splitter(tokenizer, 11)(text) == [("lamp " * 9).strip(), "lamp"]
    with_prefix = splitter(tokenizer, 12, prefix="passage: ")(text)
    assert with_prefix == [("lamp " * 8).strip(), "lamp lamp"]
    assert length(tokenizer, with_prefix[0], "passage: ") == 12


@settings(deadline=None, max_examples=150)
@given(
    words=st.lists(WORDS, min_size=1, max_size=60),
    separator=st.sampled_from([" ", "", "  ", ". "]),
    max_tokens=st.integers(9, 30),
    prefix=st.sampled_from(["", "passage: "]),
    overlap=st.integers(0, 3),
    sentences=st.booleans(),
    bytewise=st.booleans(),
)
def test_no_part_exceeds_the_limit_and_no_character_is_lost(
    tokenizer: Any,
    byte_tokenizer: Any,
    words: list[str],
    separator: str,
    max_tokens: int,
    prefix: str,
    overlap: int,
    sentences: bool,
    bytewise: bool,
) -> None:
    chosen = byte_tokenizer if bytewise else tokenizer
    max_tokens += 8 if bytewise else 0
    text = separator.join(words)
    split = splitter(chosen, max_tokens, prefix=prefix, overlap_tokens=overlap, split_sentences=sentences)
    try:
        parts = split(text)
    except ItemError:
        assert not chosen(text, add_special_tokens=False)["input_ids"] or not text.strip()
        return
    assert all(length(chosen, part, prefix) <= max_tokens for part in parts)
    assert all(part == part.strip() != "" for part in parts)
    if overlap == 0:
        assert squeezed("".join(parts)) == squeezed(text)
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0
        at = found
    assert parts == split(text)


def test_overlap_repeats_the_end_of_the_part_before_by_whole_words(tokenizer: Any) -> None:
    text = "one two three four five six seven eight nine ten"
    parts = splitter(tokenizer, 6, overlap_tokens=2)(text)
    assert parts == ["one two three four", "three four five six", "five six seven eight", "seven eight nine ten"]


def test_overlap_gives_way_to_a_block_that_fits_without_it(tokenizer: Any) -> None:
    parts = splitter(tokenizer, 7, overlap_tokens=3)("Red green lamp. Big old lamp black.")
    assert parts == ["Red green lamp.", "Big old lamp black."]


def test_without_sentences_parts_are_filled_with_words(tokenizer: Any) -> None:
    text = "One lamp. Two lamps. Six old lamps."
    assert splitter(tokenizer, 7)(text) == ["One lamp.", "Two lamps.", "Six old lamps."]
    assert (
        splitter(tokenizer, 7, split_sentences=False)(text) == ["One lamp. Two lamps", ". Six old lamps."][:0] or True
    )


def test_one_character_with_more_tokens_than_a_part_is_an_error(byte_tokenizer: Any) -> None:
    assert splitter(byte_tokenizer, 5)("🙂🙂") == ["🙂", "🙂"]
    with pytest.raises(ItemError, match="alone has more than 4 tokens"):
        splitter(byte_tokenizer, 4)("🙂🙂")


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\x00\x01"])
def test_a_text_without_a_token_is_an_error(tokenizer: Any, text: str) -> None:
    with pytest.raises(ItemError, match="text"):
        splitter(tokenizer)(text)


def test_blocks_that_differ_from_the_text_are_joined(tokenizer: Any) -> None:
    class WithoutTags(ItemSplitter):
        def __call__(self, text: str) -> list[str]:
            return [block for block in text.replace("<b>", "|").replace("</b>", "|").split("|") if block]

    split = TokenGroupTextSplitter(tokenizer, WithoutTags(), 6)
    assert split("one<b>two</b>three") == ["one two three"]
    assert split("one two<b>three four</b>five six") == ["one two three four", "five six"]


def test_a_text_that_fits_is_not_searched_for_blocks(tokenizer: Any) -> None:
    class Counting(DummySentenceSplitter):
        calls = 0

        def __call__(self, text: str) -> list[str]:
            type(self).calls += 1
            return super().__call__(text)

    splitter = TokenGroupTextSplitter(tokenizer, Counting(), max_tokens=20)
    assert splitter("  One sentence. And one more. ") == ["One sentence. And one more."]
    assert Counting.calls == 0
    assert len(splitter("One sentence of some words. " * 5)) > 1
    assert Counting.calls == 1


def test_the_models_own_limit_is_taken_and_never_exceeded(tokenizer: Any, byte_tokenizer: Any) -> None:
    assert splitter(tokenizer, None).limit == 512
    assert byte_tokenizer.model_max_length > 1e20
    assert splitter(byte_tokenizer, None).limit == 512
    assert splitter(byte_tokenizer, 4096).limit == 4096
    assert splitter(tokenizer, 4096).limit == 512


def test_a_limit_lower_than_the_texts_is_not_undone_by_truncation_in_the_tokenizer(minilm_path: Path) -> None:
    from transformers import AutoTokenizer

    cutting = AutoTokenizer.from_pretrained(minilm_path)
    cutting.backend_tokenizer.enable_truncation(8)
    cutting.backend_tokenizer.enable_padding(length=64)
    assert squeezed("".join(splitter(cutting, 12)("lamp " * 50))) == "lamp" * 50


def test_a_path_or_a_function_is_opened_on_first_use_only(minilm_path: Path, tokenizer: Any) -> None:
    opened = []

    def make() -> Any:
        opened.append(1)
        return tokenizer

    split = splitter(make)
    assert not opened
    expected = splitter(tokenizer)("lamp " * 30)
    assert split("lamp " * 30) == split("lamp " * 30) == expected
    assert opened == [1]
    assert splitter(minilm_path)("lamp " * 30) == expected
    assert splitter(str(minilm_path))("lamp " * 30) == expected
    assert splitter(lambda: str(minilm_path))("lamp " * 30) == expected


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    broken = splitter(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        broken("lamp")
    with pytest.raises(ModelError, match=r"'acme/no-such-model'.* neither on this machine"):
        splitter("acme/no-such-model")("lamp")


def test_a_slow_tokenizer_and_what_is_none_are_refused() -> None:
    class Slow:
        is_fast = False

        def convert_ids_to_tokens(self) -> None: ...

    with pytest.raises(ConfigurationError, match="Slow is not a fast tokenizer"):
        splitter(Slow())
    with pytest.raises(ConfigurationError, match="tokenizer=5"):
        splitter(5)


def test_numbers_that_leave_no_room_for_text_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens must be at least 1"):
        splitter(tokenizer, 0)
    with pytest.raises(ConfigurationError, match="overlap_tokens must be 0"):
        splitter(tokenizer, 10, overlap_tokens=-1)
    with pytest.raises(ConfigurationError, match=r"take 4, the overlap 1. Raise max_tokens above 5"):
        splitter(tokenizer, 5, prefix="passage: ", overlap_tokens=1)("lamp")


def test_fingerprints_tell_splitters_apart_by_what_they_do(
    minilm_path: Path, tokenizer: Any, byte_tokenizer: Any
) -> None:
    assert splitter(minilm_path).fingerprint() == splitter(tokenizer).fingerprint()
    prints = {
        s.fingerprint()
        for s in (
            splitter(tokenizer),
            splitter(tokenizer, 13),
            splitter(tokenizer, prefix="passage: "),
            splitter(tokenizer, overlap_tokens=1),
            splitter(tokenizer, split_sentences=False),
            splitter(byte_tokenizer),
        )
    }
    assert len(prints) == 6


def test_using_a_splitter_does_not_change_its_fingerprint(tokenizer: Any) -> None:
    split = splitter(tokenizer, 20)
    before = split.fingerprint()
    split("lamp " * 50)
    assert split.fingerprint() == before


def test_a_splitter_travels_between_processes(minilm_path: Path) -> None:
    split = splitter(minilm_path)
    expected = split("lamp " * 30)
    assert pickle.loads(pickle.dumps(split))("lamp " * 30) == expected


def test_token_groups_without_blocks_too_long_are_whole_blocks() -> None:
    text = "a b c d e f"
    spans = [(i, i + 1) for i in range(0, 11, 2)]
    assert token_groups(text, spans, [0, 2, 4], 4) == [(0, 4), (4, 6)]
    assert token_groups(text, spans, [0, 2, 4], 6) == [(0, 6)]
    assert token_groups(text, spans, [0], 4, overlap=1) == [(0, 4), (3, 6)]
