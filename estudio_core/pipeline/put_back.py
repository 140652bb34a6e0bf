"""After a release run that failed: aliases as they were, and the reason where people look for it."""

from __future__ import annotations

from collections.abc import Sequence

from estudio_core import database
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.vectordb.releases import live_release


def put_back(plugin_name: str, run_id: str, errors: Sequence[str]) -> str:
    """Close the promotion of a failed run; the alias goes back, the reason goes on the model version. Return it.

    A promotion that went live before something failed stays as it is.
    """
    registry = open_plugin(plugin_name).experiments.registry
    reason = " ".join(errors) or f"A task of run {run_id} ended without a message; see its log."
    with database.connect(autocommit=True) as connection:
        promotion = ledger.of_run(connection, plugin_name, run_id)
        if promotion is None:
            return reason
        promotion = ledger.end(connection, promotion, "failed", reason=reason)
        live = live_release(connection, plugin_name)
    if promotion.outcome == "failed":
        reason = promotion.reason  # of the first attempt, where this one is repeated
        if promotion.alias == "challenger":
            registry.put_back("challenger", promotion.alias_before, reason=reason, actor=f"release {run_id}")
        if live is not None:
            registry.put_back("champion", int(live.model_version), reason=reason, actor=f"release {run_id}")
        registry.tell_failure(int(promotion.to_version), reason)
    return reason
