"""Which model encodes items beside one that was trained for queries alone: told beside the model, in `towers.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from estudio_core.strict_model import StrictModel

TOWERS_FILE = "towers.json"
ITEM_VERSION_TAG = "estudio.item_version"
"""Tag of a registered version that says the same, for people."""


class Towers(StrictModel):
    """The other tower of a model that encodes queries alone."""

    item_version: int
    """Version in the plugin's registry of the model that encodes items."""

    def save(self, folder: Path) -> None:
        """Write it into a model's folder, with which it is registered."""
        (folder / TOWERS_FILE).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def of_model(cls, folder: Path) -> Self | None:
        """Return what `save` wrote beside a model; None for one that encodes queries and items."""
        file = Path(folder) / TOWERS_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None
