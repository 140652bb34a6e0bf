"""A model that is not registered yet, as it would be served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estudio_core.inference.embedder import Embedder
    from estudio_core.plugin.plugin import Plugin

_SCRATCH_VERSION = 0
"""Version under which a candidate that is not registered yet is exported, in a folder of its own."""


@contextmanager
def exported(plugin: Plugin, model_folder: Path, scratch: Path) -> Iterator[tuple[Embedder, str]]:
    """Give what encodes as the exported model would, and the digest of its entry, which is gone afterwards.

    Raises:
        ExportError: the graph does not compute what the model computes.
    """
    from estudio_core.export.triton_repository import ExportOptions, publish_entry
    from estudio_core.inference.manifest import entry_name
    from estudio_core.inference.opening import open_scratch_embedder
    from estudio_core.models.storage import load_model
    from estudio_core.pipeline.evaluation.export_quality import bulk_check

    name = entry_name(plugin.meta.name, _SCRATCH_VERSION)
    # As it will be published, so that its vectors can be used again; what queries lose, the release measures.
    precision = plugin.export.precision
    check = bulk_check(plugin) if precision == "fp32" else None
    try:
        entry = publish_entry(
            scratch, name, load_model(model_folder), options=ExportOptions(precision=precision), ranking_check=check
        )
        with closing(open_scratch_embedder(name, repository=scratch)) as embedder:
            yield embedder, entry.digest
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
