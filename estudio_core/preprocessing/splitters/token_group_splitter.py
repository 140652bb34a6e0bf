"""Parts that fill the model's window without ever exceeding it."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from estudio_core.errors import ConfigurationError, ItemError
from estudio_core.preprocessing.splitters.item_splitter import ItemSplitter
from estudio_core.preprocessing.splitters.tokenizers import LazyTokenizer, TokenizerSource, encode

if TYPE_CHECKING:
    from tokenizers import Encoding

logger = logging.getLogger(__name__)

Span = tuple[int, int]


class TokenGroupTextSplitter(ItemSplitter):
    """Packs blocks of a text (sentences, lists, code) greedily into parts of at most `max_tokens` tokens.

    A block that does not fit into the open part starts the next one. A block longer than a part is cut
    between words, inside a word only where that alone exceeds a part; its last piece starts the part that follows.
    Special tokens and `prefix` are counted, so that a model with this limit cuts nothing. Parts are slices of the
    text: joined they are the text without overlap, whitespace at their ends aside.

    A text that fits is tokenised once. A longer one is tokenised once to find the cuts; then all its
    parts are encoded together to confirm their length, since words cut apart can have more tokens than together.

    Args:
        tokenizer: A fast tokenizer, a folder or model name (opened on first use), or a function that returns one.
        blocks_splitter: Cuts a text into blocks. Where it changes the text, its blocks are joined by spaces.
        max_tokens: Most tokens of a part. None: the tokenizer's `model_max_length`, 512 where it has none.
        prefix: What the model's input starts with, for instance `passage: `; counted, not added.
        overlap_tokens: Most tokens that a part repeats of the end of the part before.
        split_sentences: False: blocks are not asked for, each part is filled with as many words as fit.

    Raises:
        ConfigurationError: a number is out of range, or nothing is left for the text beside special tokens, prefix
            and overlap.
    """

    def __init__(
        self,
        tokenizer: TokenizerSource,
        blocks_splitter: ItemSplitter,
        max_tokens: int | None = None,
        prefix: str = "",
        overlap_tokens: int = 0,
        split_sentences: bool = True,
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ConfigurationError(f"max_tokens must be at least 1; got {max_tokens}. None takes the model's limit.")
        if overlap_tokens < 0:
            raise ConfigurationError(f"overlap_tokens must be 0 or greater; got {overlap_tokens}.")
        self.tokenizer = LazyTokenizer(tokenizer)
        self.blocks_splitter = blocks_splitter
        self.max_tokens = max_tokens
        self.prefix = prefix
        self.overlap_tokens = overlap_tokens
        self.split_sentences = split_sentences
        self._limit: int | None = None

    @property
    def limit(self) -> int:
        """Most tokens of a part, special tokens and prefix included; opens the tokenizer."""
        if self._limit is None:
            self._limit = self.tokenizer.limit(self.max_tokens)
            if self.max_tokens is not None and self._limit < self.max_tokens:
                logger.warning("max_tokens=%d exceeds the model's %d, which is used.", self.max_tokens, self._limit)
            self._check_capacity(self._limit)
        return self._limit

    def __call__(self, text: str) -> list[str]:
        """Return the parts of `text`.

        Raises:
            ItemError: the text is empty, has nothing that the tokenizer knows of, or cannot be cut small enough.
        """
        text = text.strip()
        block_starts = None
        if self.split_sentences and not self.blocks_splitter.keeps_text:
            text, block_starts = self._blocks(text)
        if not text:
            raise ItemError("The text is empty. Fill the column, or leave the row out of the source.")
        encoding = self._encoded(text)
        further = self._spans(encoding)
        first = next(further, None)
        if first is None:
            raise ItemError("The tokenizer finds nothing in the text. Fill the column, or leave the row out.")
        if len(encoding) <= self.limit:
            return [text]
        spans = [first, *further]
        if block_starts is None:
            _, block_starts = self._blocks(text)
        capacity = self.limit - (len(encoding) - len(spans))
        token_ends = [end for _, end in spans]
        starts = sorted({bisect_right(token_ends, start) for start in block_starts} - {len(spans)})
        return self._fitting(text, spans, starts, capacity, self.overlap_tokens)

    def _blocks(self, text: str) -> tuple[str, list[int]]:
        """Return the text to cut, and where its blocks start; the first starts at 0."""
        if not text or not self.split_sentences:
            return text, [0]
        blocks = [block.strip() for block in self.blocks_splitter(text) if block.strip()]
        starts, at = [], 0
        for block in blocks:
            start = text.find(block, at)
            if start < 0 or text[at:start].strip():
                break
            starts.append(start)
            at = start + len(block)
        if len(starts) == len(blocks) and not text[at:].strip():
            return text, starts
        return " ".join(blocks), list(accumulate((len(block) + 1 for block in blocks[:-1]), initial=0))

    def _encoded(self, text: str) -> Encoding:
        (encoding,) = encode(self.tokenizer.get(), [self.prefix + text])
        return encoding

    def _spans(self, encoding: Encoding) -> Iterator[Span]:
        """Yield begin and end in the text, prefix left out, of the tokens of an encoding."""
        offset = len(self.prefix)
        return ((max(0, s - offset), e - offset) for s, e in encoding.offsets if e > max(s, offset))

    def _fitting(self, text: str, spans: list[Span], starts: list[int], capacity: int, overlap: int) -> list[str]:
        """Return parts of at most `limit` tokens, confirmed by encoding them; too long ones are cut again."""
        if capacity < 1:
            raise ItemError(f"{text[:20]!r} alone has more than {self.limit} tokens. Raise max_tokens.")
        pieces = []
        for first, end in token_groups(text, spans, starts, capacity, min(overlap, capacity - 1)):
            begin = spans[first][0] if first else 0
            piece = text[begin : spans[end][0] if end < len(spans) else len(text)].strip()
            if piece:
                pieces.append(piece)
        encodings = encode(self.tokenizer.get(), [self.prefix + piece for piece in pieces])
        parts = []
        for piece, encoding in zip(pieces, encodings, strict=True):
            excess = len(encoding) - self.limit
            if excess <= 0:
                parts.append(piece)
            else:
                parts += self._fitting(piece, list(self._spans(self._encoded(piece))), [0], capacity - excess, 0)
        return parts

    def _check_capacity(self, limit: int) -> None:
        fixed = len(encode(self.tokenizer.get(), [self.prefix])[0])
        if limit - fixed - self.overlap_tokens < 1:
            raise ConfigurationError(
                f"max_tokens={limit} leaves no room for text: special tokens and prefix {self.prefix!r} take {fixed}, "
                f"the overlap {self.overlap_tokens}. Raise max_tokens above {fixed + self.overlap_tokens}."
            )

    def _settings(self) -> tuple[object, ...]:
        blocks = self.blocks_splitter.fingerprint() if self.split_sentences else ""
        return (self.tokenizer.fingerprint(), blocks, self.limit, self.prefix, self.overlap_tokens)


def token_groups(
    text: str, spans: Sequence[Span], starts: Sequence[int], capacity: int, overlap: int = 0
) -> list[tuple[int, int]]:
    """Return ranges of tokens: blocks packed greedily into groups of at most `capacity` tokens.

    Args:
        text: The text of the tokens; says where words end.
        spans: Begin and end in `text` of each token.
        starts: Index of the first token of each block, ascending, the first 0.
        capacity: Most tokens of a group, at least 1.
        overlap: Most tokens that a group repeats of the one before, less than `capacity`; fewer where a
            block would not fit otherwise.

    >>> words = "a b c d e f g"
    >>> token_groups(words, [(i, i + 1) for i in range(0, 13, 2)], [0, 3, 6], 4)
    [(0, 3), (3, 7)]
    """
    groups: list[tuple[int, int]] = []
    begin = new = end = 0  # the open group is [begin, end), of which [begin, new) is overlap

    def close(at: int, room: int) -> tuple[int, int]:
        groups.append((begin, at))
        back = max(0, at - room)
        while back < at and not _starts_word(text, spans, back):
            back += 1
        return back, at

    for block_end in [*starts[1:], len(spans)]:
        if block_end - begin > capacity and end > new:
            spare = capacity - (block_end - end)
            begin, new = close(end, overlap if spare < 0 else min(overlap, spare))
        while block_end - begin > capacity and new < block_end:
            begin, new = close(_cut(text, spans, new, begin + capacity, block_end), overlap)
        end = block_end
    if end > new:
        groups.append((begin, end))
    return groups


def _cut(text: str, spans: Sequence[Span], after: int, most: int, block_end: int) -> int:
    """Return where to cut tokens `after` to `most`: the last word start, else the last place between characters."""
    for index in range(most, after, -1):
        if _starts_word(text, spans, index):
            return index
    for index in range(most, after, -1):
        if _starts_character(spans, index):
            return index
    # One character has more tokens than a group: end the group after it, encoding it will tell.
    return next((index for index in range(most + 1, block_end) if _starts_character(spans, index)), block_end)


def _starts_character(spans: Sequence[Span], index: int) -> bool:
    return spans[index][0] >= spans[index - 1][1]


def _starts_word(text: str, spans: Sequence[Span], index: int) -> bool:
    start = spans[index][0]
    return text[start].isspace() or text[start - 1 : start].isspace()
