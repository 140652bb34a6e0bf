"""What every augmentation is: a rule that makes variants, and a choice among them."""

from __future__ import annotations

import hashlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from estudio_core.errors import ConfigurationError

_global_random = threading.RLock()
"""Held while the state of the `random` module is ours."""


class AugmentationWithRandomSelection(ABC):
    """Makes variants of a text and keeps some of them.

    Subclasses implement `_raw_transform` and may use the `random` module freely in it: its state is seeded
    from `seed` and the text before, and put back after. So a text has the same variants in every process and
    order of texts.

    Args:
        selection_size: 1 keeps all variants; below 1 that fraction, at least one; above 1 at most that many.
        seed: Of the variants and of the choice among them.

    Raises:
        ConfigurationError: `selection_size` is not positive, or above 1 and not a whole number.
    """

    def __init__(self, selection_size: float = 1.0, seed: int = 42) -> None:
        if not selection_size > 0 or (selection_size > 1 and selection_size != int(selection_size)):
            raise ConfigurationError(
                f"selection_size must be a fraction in (0, 1] or a whole number of variants; got {selection_size}."
            )
        self.selection_size = selection_size
        self.seed = seed

    @abstractmethod
    def _raw_transform(self, object: str) -> list[str]:
        """Return variants of a text; the text itself may be among them."""

    def transform(self, object: str) -> list[str]:
        """Return the chosen variants: all different, none the text itself, in the order they were made."""
        with _seeded(f"{self.seed}\x1f{type(self).__qualname__}\x1f{object}"):
            made = dict.fromkeys(self._raw_transform(object))
            variants = [variant for variant in made if variant.strip() and variant.strip() != object.strip()]
            count = self._count(len(variants))
            chosen = sorted(random.sample(range(len(variants)), count))
        return [variants[index] for index in chosen]

    def _count(self, available: int) -> int:
        if self.selection_size == 1 or self.selection_size >= available:
            return available
        if self.selection_size > 1:
            return int(self.selection_size)
        return min(available, max(1, int(self.selection_size * available)))


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Seed the `random` module for the block, and put its state back."""
    with _global_random:
        state = random.getstate()
        random.seed(hashlib.blake2b(seed.encode(), digest_size=16).digest())
        try:
            yield
        finally:
            random.setstate(state)
