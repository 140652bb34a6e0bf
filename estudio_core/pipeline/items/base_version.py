"""The base model in the registry, with what words weigh beside its similarities."""

from __future__ import annotations

import logging
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.items.parts import ItemParts, as_write

if TYPE_CHECKING:
    from estudio_core.models.embedding_model import EmbeddingModel
    from estudio_core.plugin.plugin import Plugin

logger = logging.getLogger(__name__)

_READ, _ENCODED = 4_096, 256
"""Items that are read, and drawn of these: 32,640 pairs tell the spread of similarities to about a hundredth."""


def registered_base(plugin: Plugin) -> int:
    """Register the plugin's base model, where it is not yet, and return its version.

    Raises: as `DataLoader.iter_items`, where the index ranks words.
    """
    from estudio_core.models.storage import save_model

    model = plugin.base_model()
    with tempfile.TemporaryDirectory(prefix="estudio-base-") as folder:
        save_model(model, folder)
        index = plugin.index
        fits = model.dimensions == index.dimensions  # where it does not, no release is made of it, which says so
        fusion = _fusion_beside(model, plugin) if fits and index.lexical is not None else Fusion()
        if fusion != Fusion():
            fusion.save(Path(folder))
        return plugin.experiments.upload_initial_folder(Path(folder))


def _fusion_beside(model: EmbeddingModel, plugin: Plugin) -> Fusion:
    """Return the default fusion for a model whose similarities spread over this catalog as they do."""
    from estudio_core.evaluation.scores import EncodedCatalog, similarity_scores

    read = list(islice((row for batch in plugin.loader.iter_items() for row in batch.items), _READ))
    drawn = (as_write(read[place]) for place in np.random.default_rng(0).permutation(len(read))[:_ENCODED])
    vectors = model.encode_items([split.parts[0] for split in ItemParts(plugin).of_items(drawn)]).numpy()
    if not len(vectors):
        return Fusion()
    catalog = EncodedCatalog.from_parts({str(row): vectors[row : row + 1] for row in range(len(vectors))})
    found = similarity_scores(vectors, catalog, plugin.index)(np.arange(len(vectors)))
    fusion = Fusion.for_similarities(found[np.triu_indices(len(vectors), 1)])
    logger.info("Words weigh %g beside similarities, until clicks tell otherwise.", fusion.weight)
    return fusion
