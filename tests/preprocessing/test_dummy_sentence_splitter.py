# ruff: noqa: RUF001 (letters and full stops of many scripts look like Latin ones)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.preprocessing.splitters import DummySentenceSplitter

split = DummySentenceSplitter()

FRAGMENTS = st.sampled_from(
    [
        "\n",
        "\n\n",
        " ",
        "```",
        "```python\n",
        "~~~\n",
        "- item\n",
        "1. one\n",
        "  more\n",
        "Dr. ",
        "e.g. ",
        "3.5",
        "No. 5 ",
        "Hello. ",
        "¿Qué? ",
        "Wow!! ",
        "今日は。",
        "«Да.» ",
        "т.е. ",
        "A. B. ",
        "...",
        "…",
        "\t",
        "\r\n",
        "\u2028",
        "x",
    ]
)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Это лампа. Она светит!", ["Это лампа.", "Она светит!"]),
        ("今日は晴れ。明日は？「雨。」終わり", ["今日は晴れ。", "明日は？", "「雨。」", "終わり"]),
        ("यह दीपक है। यह लाल है।", ["यह दीपक है।", "यह लाल है।"]),
        ('He said "Stop." She left.', ['He said "Stop."', "She left."]),
        ("(It works.) Really.", ["(It works.)", "Really."]),
        ("Wait... what? no!", ["Wait...", "what?", "no!"]),
    ],
)
def test_sentences_end_where_their_language_ends_them(text: str, blocks: list[str]) -> None:
    assert split(text) == blocks


@pytest.mark.parametrize(
    "text",
    [
        "Mr. Hall met Dr. Lee.",
        "Cables, e.g. USB and HDMI, i.e. Both.",
        "J. R. Hall wrote it.",
        "It weighs 3.5 kg.",
        "See no. 5 and fig. 7.",
        "Am 3. Oktober.",
        "Длина, т.е. Размер.",
        "Visit www.example.com today.",
        "It is approx. five",
        "Version 2.0.1 is out.",
        "Really?!yes",
    ],
)
def test_full_stops_inside_sentences_do_not_end_them(text: str) -> None:
    assert split(text) == [text]


def test_a_year_may_end_a_sentence() -> None:
    assert split("It is from 2020. It works.") == ["It is from 2020.", "It works."]


def test_a_code_block_stays_whole_with_the_text_on_its_fence_lines() -> None:
    text = "Run this. ```python x=1\nprint(x. y)\n\n- no list\n``` then stop. Done."
    assert split(text) == [text]
    assert split("Before.\n```\na. B\n```\nAfter.") == ["Before.", "```\na. B\n```", "After."]
    assert split("~~~\na. B\n~~~\nAfter.") == ["~~~\na. B\n~~~", "After."]


def test_inline_code_and_a_fence_that_is_never_closed_are_plain_text() -> None:
    assert split("Use ```pip```. Then go.") == ["Use ```pip```.", "Then go."]
    assert split("```\nOne. Two.") == ["```", "One.", "Two."]


@pytest.mark.parametrize("after", ["", "\n", "\n\n", "\n\n\nThe end.", "\n \t\nThe end."])
def test_blank_lines_after_a_list_close_it(after: str) -> None:
    blocks = split("Buy:\n1. one. Two\n2) three\n   more of it\n- four" + after)
    assert blocks[:2] == ["Buy:", "1. one. Two\n2) three\n   more of it\n- four"]
    assert blocks[2:] == (["The end."] if "end" in after else [])


def test_order_is_kept_around_an_open_list() -> None:
    assert split("1. one\nA sentence.\n2. two") == ["1. one", "A sentence.", "2. two"]


def test_a_code_block_ends_a_list() -> None:
    assert split("- one\n  ```\n  a. B\n  ```\n- two") == ["- one", "```\n  a. B\n  ```", "- two"]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t"])
def test_an_empty_text_has_no_blocks(text: str) -> None:
    assert split(text) == []


@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)))
def test_no_character_is_lost_and_order_is_kept(text: str) -> None:
    blocks = split(text)
    assert all(block and block == block.strip() for block in blocks)
    assert "".join("".join(blocks).split()) == "".join(text.split())
    at = 0
    for block in blocks:
        at = text.index(block, at) + len(block)


def test_a_long_text_takes_linear_time() -> None:
    assert len(split("A short sentence. " * 20_000)) == 20_000
    assert len(split("```\n" + "x. Y\n" * 3_000)) == 6_001
