"""The steps of whole DAGs, called one after another as Airflow would, for tests that look inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estudio_core import database
from estudio_core.inference.model_store import entry_of
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.check_source import check_source
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.evaluate import evaluate
from estudio_core.pipeline.extract import extract
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.manifests import EvaluationManifest, LiveManifest, PublishedManifest, TrainingManifest
from estudio_core.pipeline.preprocess import preprocess
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register import register
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.switch import switch
from estudio_core.pipeline.train import train
from estudio_core.pipeline.verify import verify
from estudio_core.vectordb import releases, switching
from estudio_core.vectordb.releases import Release


@dataclass(frozen=True)
class FineTuned:
    """What a whole fine-tuning gave."""

    training: TrainingManifest
    evaluation: EvaluationManifest
    version: str


def initialize(plugin: str, run_id: str = "initialize-1", shards: int = 2) -> LiveManifest:
    """Do what `<plugin>__initialize` does."""
    check_source(plugin)
    return release(plugin, register_base_model(plugin, run_id, "ana"), run_id, shards)


def release(plugin: str, version: str, run_id: str, shards: int = 2) -> LiveManifest:
    """Do what `<plugin>__release` does."""
    entry = publish_model(plugin, version, run_id)
    loaded = [
        embed_shard(plugin, shard.as_dict()).as_dict()
        for shard in start_collection(plugin, entry.as_dict(), shards, run_id)
    ]
    built = build_index(plugin, loaded).as_dict() if loaded else None
    live = switch(plugin, verify(plugin, built, run_id).as_dict())
    clean_up(plugin, {})
    return live


def build_release(plugin: str, model_name: str, run_id: str) -> Release:
    """Build a collection for a published entry and make it live, without the registry."""
    manifest = entry_of(model_name)
    entry = PublishedManifest(name=model_name, version="1", digest=manifest.digest, dimensions=manifest.dimensions)
    loaded = [
        embed_shard(plugin, shard.as_dict()).as_dict() for shard in start_collection(plugin, entry.as_dict(), 2, run_id)
    ]
    verified = verify(plugin, build_index(plugin, loaded).as_dict())
    with database.connect(autocommit=True) as connection:
        release = releases.get_release(connection, verified.release_id)
        return switching.switch(connection, release, embed_writes(plugin))


def fine_tune(plugin: str, params: dict[str, Any], run_id: str = "fine-tune-1") -> FineTuned:
    """Do what `<plugin>__fine_tune` does, up to the registered challenger."""
    sessions = extract(plugin, run_id, params)
    dataset = preprocess(plugin, run_id, sessions.as_dict())
    training = train(plugin, run_id, dataset.as_dict(), params)
    evaluation = evaluate(plugin, run_id, training.as_dict())
    registered = register(plugin, run_id, evaluation.as_dict(), params)
    return FineTuned(training, evaluation, str(registered.version))
