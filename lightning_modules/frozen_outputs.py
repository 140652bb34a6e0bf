"""What the frozen layers make of each text, kept over steps and epochs: in memory, or in a file where it is large."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_modules.text_bank import TextBank

logger = logging.getLogger(__name__)

_OTHER_FOLDERS = ("/var/tmp",)  # noqa: S108 (a file without a name, which nobody else can open)
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_SHARE_OF_FREE = 0.5
"""Of the free space of a disk or GPU, the most that is taken: others live there too."""


class FrozenOutputs:
    """Hidden states of the texts of a bank, one after another in one array.

    Everything is kept in memory where it fits into `memory_bytes`, on the device where there is room; else in a
    memory-mapped file, whose hot pages the operating system keeps in memory and gives up where others need them.
    The file has no name: it is gone with the process, however that ends. Texts beyond the bounds are not kept.

    On one AMD core, three layers of MiniLM took 0.32 s (bf16) to 0.93 s (32 bits) of processor time for 104 texts of 64
    tokens, and reading what they had given from the file's cached pages 0.002 s.

    Args:
        bank: The texts.
        dimensions: Of a hidden state.
        memory_bytes: Most memory to take; 0: nothing is kept at all.
        disk_bytes: Largest file, in the folder of temporary files (`TMPDIR`), or `/var/tmp` where that is memory; 0:
            none is made.
        dtype: Format in which they are kept.
        device: Of the model.

    Attributes:
        where: `memory`, `disk`, or `nowhere`.
    """

    def __init__(
        self,
        bank: TextBank,
        dimensions: int,
        memory_bytes: int,
        disk_bytes: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._bank = bank
        self._dimensions = dimensions
        ends = bank.starts + bank.lengths
        per_token = dimensions * dtype.itemsize
        wanted = int(ends[-1]) * per_token if len(ends) else 0
        self.where = "memory"
        capacity = min(wanted, memory_bytes)
        on_disk = None
        folder = folder_on_disk() if wanted > memory_bytes > 0 and disk_bytes > memory_bytes else None
        if folder is not None:
            free = int(shutil.disk_usage(folder).free * _SHARE_OF_FREE)
            if min(wanted, disk_bytes, free) > memory_bytes:
                on_disk = _in_file(folder, min(wanted, disk_bytes, free) // per_token, dimensions, dtype)
                if on_disk is not None:
                    capacity, self.where = len(on_disk) * per_token, "disk"
        tokens = capacity // per_token
        self._fits = torch.from_numpy(ends <= tokens)
        self._known = torch.zeros(len(bank), dtype=torch.bool)
        if not self._fits.any():
            self.where = "nowhere"
            self._states = torch.empty(0, dimensions, dtype=dtype)
        elif on_disk is not None:
            self._states = on_disk
            logger.info("Outputs of the frozen layers take %d MB on disk, in %s.", capacity >> 20, folder)
        else:
            self._states = torch.empty(tokens, dimensions, dtype=dtype, device=_roomy(device, capacity))

    def known(self, rows: Sequence[int]) -> Tensor:
        """Return which of `rows` are kept, bool [rows]."""
        return self._known[rows]

    def read(self, rows: Sequence[int], length: int, device: torch.device) -> Tensor:
        """Return hidden states float32 [rows, length, dimensions] of known rows; padding repeats the last token.

        Args:
            rows: Rows that are known.
            length: At least that of the longest of them.
            device: Where they are to be.
        """
        places, _ = self._bank.places(rows)
        short = length - places.shape[1]
        if short:
            places = torch.cat([places, places[:, -1:].expand(-1, short)], dim=1)
        return self._states[places.to(self._states.device)].to(device, torch.float32, non_blocking=True)

    def write(self, rows: Sequence[int], hidden: Tensor) -> None:
        """Keep the hidden states [rows, longest of the rows, dimensions] of those rows that fit."""
        taken = self._fits[rows]
        if not taken.any():
            return
        places, mask = self._bank.places(rows)
        real = mask.bool() & taken[:, None]
        store = self._states.device
        kept = hidden.detach()[real.to(hidden.device)].to(store, self._states.dtype)
        self._states[places[real].to(store)] = kept
        self._known[torch.as_tensor(rows)[taken]] = True


def folder_on_disk() -> str | None:
    """Return a folder for a large file: that of temporary files, or another one where that is memory (a tmpfs).

    None where there is none. The choice is told, once for each cache.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, *_OTHER_FOLDERS):
        if os.access(folder, os.W_OK) and not _is_memory(folder):
            if folder != usual:
                logger.info("%s is memory: outputs of the frozen layers go to %s.", usual, folder)
            return folder
    logger.warning(
        "%s is memory, so that outputs of the frozen layers are kept there no better than beside it: those that fit "
        "are kept in memory. Set TMPDIR to a folder on a disk.",
        usual,
    )
    return None


def _is_memory(folder: str) -> bool:
    """Return whether what is written to a folder takes memory; False where the system does not say."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        place = Path(folder).resolve()
    except OSError:
        return False
    kinds: dict[Path, str] = {}
    for mount in mounts:
        _, at, kind, *_ = mount.split(" ")
        kinds[Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), at))] = kind
    return next((kinds[at] in _MEMORY for at in (place, *place.parents) if at in kinds), False)


def _in_file(folder: str, tokens: int, dimensions: int, dtype: torch.dtype) -> Tensor | None:
    """Return an array [tokens, dimensions] in a file, whose room is set aside; None where others took the room."""
    format_of = {torch.float16: np.float16, torch.float32: np.float32}
    size = tokens * dimensions * dtype.itemsize
    with tempfile.TemporaryFile(prefix="estudio-frozen-", dir=folder) as file:  # the mapping holds it open
        try:
            # Of a file that is only made long, a page for which there is no room kills the process that writes it.
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            logger.warning("No %d MB for outputs of the frozen layers on disk: %s.", size >> 20, error.strerror)
            return None
        mapped = np.memmap(file, dtype=format_of[dtype], mode="r+", shape=(tokens, dimensions))
    return torch.from_numpy(mapped)


def _roomy(device: torch.device, size: int) -> torch.device:
    """Return the device itself where half of its free memory holds `size` bytes, else the CPU."""
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] * _SHARE_OF_FREE:
        return torch.device("cpu")
    return device
