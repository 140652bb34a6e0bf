"""Blocks of a text by rules alone: code fences, lists, lines and sentences, in any language."""

# ruff: noqa: RUF001 (letters and full stops of many scripts look like Latin ones)

from __future__ import annotations

import re
from collections.abc import Iterator

from estudio_core.preprocessing.splitters.item_splitter import ItemSplitter

_FENCE = re.compile(r"```|~~~")
_LIST_LINE = re.compile(r"\s*(?:[-*+•‣◦–—]|\(?\d{1,3}[.)]|\(?[a-zA-Zа-яА-Я]\))\s+\S")
_CJK_STOPS = "。！？｡"
_END = re.compile(
    rf"""(?: [{_CJK_STOPS}]+ [.!?…]*                      # no space follows
           | [.!?…؟۔।॥։]+ (?= [\s"'”’»)\]}}] | $ )   # a space, a closing mark or the end follows
         ) ["'”’»)\]}}」』）]*""",
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]+$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st jr sr vs etc e.g i.e cf al no nos vol fig figs approx inc ltd co corp dept est min max
    jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k
    z.b d.h bzw usw ca nr str evtl ggf inkl zzgl abb bd
    m mm mme mlle p.ex env ex av chap réf
    sra srta ud uds p.ej pág núm ee.uu sig dott art
    т.е т.д т.п т.к т.н др пр г гг ул стр рис см им руб коп тыс млн млрд мин сек напр
    """.split()  # noqa: SIM905 (a list of 100 quoted words is harder to read)
)
"""Words that end with a full stop inside sentences, lower case, without that stop."""
_LONGEST_WORD = 40
"""Characters looked back for the word before a full stop."""
_DIGITS_OF_ORDINALS = 3
"""A number of so many digits before a full stop is an ordinal or a reference; a longer one is a year or an amount."""


class DummySentenceSplitter(ItemSplitter):
    r"""Cuts a text into blocks: code between fences, lists, and the sentences of all other lines.

    A code block is whole lines, from the line with the opening fence to the line with the closing one; a fence that is
    never closed is plain text. A list is a run of list lines and lines indented below them. Nothing but whitespace
    between blocks is lost, and order is kept. An empty text has no blocks.

    >>> DummySentenceSplitter()("Dr. Hall wrote it. It works!\n\n1. one\n2. two\n\nThe end.")
    ['Dr. Hall wrote it.', 'It works!', '1. one\n2. two', 'The end.']
    >>> DummySentenceSplitter()("今日は晴れ。明日は雨。")
    ['今日は晴れ。', '明日は雨。']
    """

    keeps_text = True

    def __call__(self, text: str) -> list[str]:
        """Return the blocks, stripped, none of them empty."""
        return [block for block in (raw.strip() for raw in _blocks(text.splitlines(keepends=True))) if block]


def _blocks(lines: list[str]) -> Iterator[str]:
    """Yield blocks with the whitespace around them; joined they are the text."""
    at = 0
    while at < len(lines):
        end = _fence_end(lines, at) or _list_end(lines, at)
        if end:
            yield "".join(lines[at:end])
            at = end
        else:
            yield from split_sentences(lines[at])
            at += 1


def _fence_end(lines: list[str], start: int) -> int | None:
    """Return the index after the line that closes the fence opened in line `start`, if one is opened and closed."""
    fence = _open_fence(lines[start])
    if fence is None:
        return None
    for index in range(start + 1, len(lines)):
        if lines[index].count(fence) % 2:
            return index + 1
    return None


def _open_fence(line: str) -> str | None:
    """Return the fence that `line` leaves open; `~~~` opens one at the start of a line only."""
    match = _FENCE.search(line)
    if match is None or (match.group() == "~~~" and line[: match.start()].strip()):
        return None
    return match.group() if line.count(match.group()) % 2 else None


def _list_end(lines: list[str], start: int) -> int | None:
    """Return the index after the last line of the list that begins in line `start`, if one does."""
    if not _LIST_LINE.match(lines[start]):
        return None
    for index in range(start + 1, len(lines)):
        line = lines[index]
        continues = _LIST_LINE.match(line) or (line[:1].isspace() and line.strip())
        if not continues or _fence_end(lines, index):
            return index
    return len(lines)


def split_sentences(line: str) -> list[str]:
    """Return the sentences of a line with the whitespace that follows them; joined they are the line.

    A sentence ends at `. ! ? …` and their kin in other scripts where whitespace or the end follows, except after a
    common abbreviation, an initial or a number below 1000.

    >>> split_sentences("Fits J. Hall's no. 5 lamp, approx. 3.5 cm. Buy now! 50 left.")
    ["Fits J. Hall's no. 5 lamp, approx. 3.5 cm. ", 'Buy now! ', '50 left.']
    """
    sentences, start = [], 0
    for match in _END.finditer(line):
        end = match.end()
        if not _ends_sentence(line, match):
            continue
        while end < len(line) and line[end].isspace():
            end += 1
        sentences.append(line[start:end])
        start = end
    if start < len(line):
        sentences.append(line[start:])
    return sentences


def _ends_sentence(line: str, match: re.Match[str]) -> bool:
    is_followed_by_text = match.end() < len(line) and not line[match.end()].isspace()
    if is_followed_by_text and match.group()[0] not in _CJK_STOPS:
        return False
    word = _LAST_WORD.search(line, max(0, match.start() - _LONGEST_WORD), match.start())
    if match.group() != "." or word is None:
        return True
    text = word.group()
    is_initial = len(text) == 1 and text.isalpha() and text.isupper()
    is_small_number = text.isdigit() and len(text) <= _DIGITS_OF_ORDINALS
    return not (is_initial or is_small_number or text.lower() in _ABBREVIATIONS)
