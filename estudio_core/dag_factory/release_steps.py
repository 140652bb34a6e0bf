"""The tasks that make a model version live; `initialize` and `release` share them."""

from __future__ import annotations

from typing import Any

from airflow.sdk import get_current_context

from estudio_core.dag_factory.assets import model_asset, release_asset
from estudio_core.dag_factory.links import ModelLink, PageLink
from estudio_core.dag_factory.steps import ERROR_KEY, INDEX_POOL, URGENT, Steps


def publish_model(plugin: str, version: Any, run_id: str | None = None) -> dict[str, Any]:
    """Export the version to ONNX, check it against the trained model, and publish it to the Triton repository."""
    from estudio_core.pipeline.publish_model import publish_model

    return publish_model(plugin, str(version), str(run_id)).as_dict()


def start_collection(
    plugin: str,
    entry: dict[str, Any],
    shards: int,
    shard_items: int,
    run_id: str | None = None,
    params: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Open a release with an empty collection, and divide the items into shards: none over the live collection."""
    from estudio_core.pipeline.start_collection import start_collection

    weight = (params or {}).get("words_weight")
    return [shard.as_dict() for shard in start_collection(plugin, entry, shards, str(run_id), shard_items, weight)]


def embed_shard(plugin: str, shard: dict[str, Any]) -> dict[str, Any]:
    """Read, split and encode the items of one shard, and load them into the collection."""
    from estudio_core.pipeline.embed_shard import embed_shard

    return embed_shard(plugin, shard).as_dict()


def build_index(plugin: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the HNSW index over the loaded vectors."""
    from estudio_core.pipeline.build_index import build_index

    return build_index(plugin, list(shards)).as_dict()


def verify(plugin: str, built: dict[str, Any] | None, run_id: str | None = None) -> dict[str, Any]:
    """Apply writes that came meanwhile, then check counts, recall and golden queries."""
    from estudio_core.pipeline.verify import verify

    return verify(plugin, built, str(run_id)).as_dict()


def switch(plugin: str, verified: dict[str, Any]) -> dict[str, Any]:
    """Make the release live in one transaction, and move the registry alias `champion` to its version."""
    from estudio_core.pipeline.switch import switch

    return switch(plugin, verified).as_dict()


def clean_up(plugin: str, live: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Drop releases that are older than those to keep."""
    from estudio_core.pipeline.clean_up import clean_up

    return clean_up(plugin, params or {}).as_dict()


def put_back(plugin: str, run_id: str | None = None) -> str:
    """After a failure: close the promotion, put the alias back, and leave the reason on the model version."""
    from estudio_core.pipeline.put_back import put_back

    context = get_current_context()
    upstream = sorted(context["task"].upstream_task_ids)
    found = context["ti"].xcom_pull(task_ids=upstream, key=ERROR_KEY)
    errors = [error for error in found or () if error]
    return put_back(plugin, str(run_id), errors)


def built_release(steps: Steps, version: Any) -> list[Any]:
    """Add the tasks from `version` to a verified release, and return them in order.

    Over the live collection there is no shard: `embed_shard` and `build_index` are skipped, and `verify` follows.
    """
    name = steps.card.meta.name
    entry = steps(publish_model, inlets=[model_asset(name)], links=[ModelLink(name)])(name, version)
    settings = steps.card.dag_settings
    shards = steps(start_collection)(name, entry, settings.shards, settings.shard_items)
    loaded = (
        steps(embed_shard, pool=INDEX_POOL, map_index_template="{{ task.op_kwargs['shard']['label'] }}")
        .partial(plugin=name)
        .expand(shard=shards)
    )
    built = steps(build_index, pool=INDEX_POOL, minutes=settings.index_timeout_minutes)(name, loaded)
    verified = steps(verify, trigger_rule="none_failed_min_one_success")(name, built)
    shards >> verified
    return [entry, shards, loaded, built, verified]


def release_tasks(steps: Steps, version: Any) -> Any:
    """Add the tasks from `version` to a live release; return the last one."""
    name = steps.card.meta.name
    built = built_release(steps, version)
    verified = built[-1]
    live = steps(switch, outlets=[release_asset(name)], links=[PageLink(name)])(name, verified)
    cleaned = steps(clean_up)(name, live)
    failed = steps(put_back, trigger_rule="one_failed", **URGENT)(name)
    # Not after clean_up: a leaf of its own, it lets the whole run fail where a task before it has failed.
    [version, *built, live] >> failed
    return cleaned
