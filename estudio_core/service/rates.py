"""How many requests a minute a key may make: one count for all worker processes of a host."""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import tempfile
import time
from pathlib import Path

FILE_VARIABLE = "ESTUDIO_SERVICE_RATES_FILE"
"""The file that worker processes share; `server.run` names it before they start."""

_SLOT = struct.Struct("=Qdd")  # mark of the name, requests left, when that was counted
_SLOTS = 16_384
_PROBED = 8
"""Slots where a name may stand. Of a million names of strangers some share one; a key's does not, once it has it."""
_MINUTE = 60.0


class Rates:
    """Buckets that fill up evenly: a name may make its requests of a minute at once, and then one each 60/rate s.

    Args:
        file: Shared with other processes; by default that of the environment, else one of this process.
    """

    def __init__(self, file: Path | None = None) -> None:
        given = file or os.environ.get(FILE_VARIABLE)
        if given:
            self._descriptor = os.open(given, os.O_RDWR | os.O_CREAT, 0o600)
        else:
            self._descriptor, name = tempfile.mkstemp(prefix="estudio-rates-")
            os.unlink(name)
        os.ftruncate(self._descriptor, _SLOTS * _SLOT.size)
        self._memory = mmap.mmap(self._descriptor, _SLOTS * _SLOT.size)

    def take(self, name: str, per_minute: int, times: int = 1) -> float:
        """Count requests; return 0 where they may be made, else the seconds until they may, and count none.

        More than `per_minute` at once never may: infinitely many seconds.
        """
        if times > per_minute:
            return math.inf
        digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
        mark = int.from_bytes(digest, "big") or 1
        now = time.monotonic()  # of the host: the same for all its processes
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            slot, left = self._slot(mark, float(per_minute), now)
            if left < times:
                return (times - left) * _MINUTE / per_minute
            _SLOT.pack_into(self._memory, slot, mark, min(left - times, float(per_minute)), now)
            return 0.0
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def give_back(self, name: str, per_minute: int) -> None:
        """Count a request less: it was none of those that the rate is for."""
        self.take(name, per_minute, -1)

    def _slot(self, mark: int, most: float, now: float) -> tuple[int, float]:
        """Return the place of a name and how many requests it has left."""
        oldest, oldest_at = 0, float("inf")
        for step in range(_PROBED):
            place = (mark + step) % _SLOTS * _SLOT.size
            found, left, at = _SLOT.unpack_from(self._memory, place)
            if found == mark:
                return place, min(most, left + max(0.0, now - at) * most / _MINUTE)
            if found == 0:
                return place, most
            if at < oldest_at:
                oldest, oldest_at = place, at
        return oldest, most
