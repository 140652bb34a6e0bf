"""The base model, adapted to the pairs of its catalog."""

from __future__ import annotations

import time
from typing import Any

from estudio_core.artifacts import ArtifactStore
from estudio_core.pipeline.items.base_version import registered_base
from estudio_core.pipeline.manifests import PairsManifest, PretrainingManifest
from estudio_core.pipeline.training.child import run_process
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import open_plugin
from lightning_modules.config import TrainingConfig

_KEPT = {
    *("max_steps", "batch_size", "learning_rate", "weight_decay", "warmup_steps", "decay", "gradient_clip", "dropout"),
    *("num_fixed_layers", "seed", "drift_penalty", "interpolation"),
    *TrainingConfig.settable("installation"),
}
"""What a plugin says of its trainings that holds here too; the rest is about clicks, or about a loss over them."""
_SHARE = 0.25
"""Of the trained weights, where nobody says otherwise. A development division of Chorus, similarity and words together,
one seed, nDCG@10 full and judged: +0.028 and +0.005 with a quarter, +0.020 and -0.013 with a half (larger batches)."""


def pretrain(plugin_name: str, run_id: str, paired: dict[str, Any]) -> PretrainingManifest:
    """Train the base model on stored pairs, each seen once, in a process of its own.

    As in any training, vectors are held near the base model's, and the result is a share of it (`interpolation`).

    Raises:
        ModelError, DataError: as `train`.
    """
    pairs = PairsManifest.model_validate(paired)
    plugin = open_plugin(plugin_name)
    manager = plugin.experiments
    base = registered_base(plugin)
    index = plugin.index
    said = resolve({}, plugin=plugin.fine_tune, training=plugin.training.given).training.given
    training = TrainingConfig(
        **({"interpolation": (_SHARE,)} | {name: value for name, value in said.items() if name in _KEPT}),
        num_epochs=1,
        metric=index.metric_type,
        aggregation=index.metric_aggregation_type,
    )
    iteration = manager.start_iteration(
        run_id,
        dataset_id=pairs.dataset_id,
        dataset_uri=pairs.uri,
        start_version=base,
        params=training.to_mlflow(),
        tags={"estudio.pretrain": "catalog"},
    )
    store = ArtifactStore()
    began = time.monotonic()
    with store.fetch(pairs.uri) as data_folder, store.publish(plugin_name, run_id, "pretraining") as folder:
        request = {
            "kind": "pretraining",
            "dataset": str(data_folder.resolve()),
            "model": str(manager.download_model(base)),
            "output": str(folder.resolve()),
            "training": training.as_json(),
            "taught": pairs.taught,
        }
        try:
            result = run_process(request, training.threads)
        except Exception as error:
            manager.end_iteration(iteration, error=str(error))
            raise
    manager.end_iteration(iteration)
    return PretrainingManifest(
        uri=store.uri(plugin_name, run_id, "pretraining"),
        pairs=pairs,
        base_version=str(base),
        mlflow_run_id=iteration.run_id,
        steps=result["steps"],
        seconds=round(time.monotonic() - began, 1),
    )
