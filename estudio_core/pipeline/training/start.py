"""From which registered versions a training starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.errors import ConfigurationError
from estudio_core.models.towers import Towers
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.plugin.run_params import FineTuneRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Version whose weights are trained; where queries alone are, the one whose vectors items keep, else None."""

    version: int
    item_version: int | None


def start_of(manager: ExperimentsManager, run: FineTuneRun) -> Start:
    """Return the versions to start from: the champion is the base model until there has been a release.

    Both are trained as one tower. Where the version's towers are two, that is the tower of its items: what a model of
    queries makes of items was never measured, and its clicks are in the log still.

    Raises:
        ConfigurationError: there is no such version, or its items are not those that are live.
    """
    start_from = run.start_from
    if start_from == "champion" and "champion" not in manager.aliases():
        start_from = "base"
    version = manager.registry.resolve(start_from)
    towers = Towers.of_model(manager.download_model(version))
    item_version = version if towers is None else towers.item_version
    if run.training.train == "both":
        if item_version != version:
            logger.info("Version %d encodes queries alone: both are trained from %d.", version, item_version)
        return Start(item_version, None)
    with database.connect() as connection:
        live = live_release(connection, manager.plugin_name)
    if live is not None and live.item_model_version != str(item_version):
        raise ConfigurationError(
            f"train='query' keeps the items' vectors that are live, those of version {live.item_model_version}; "
            f"start_from={run.start_from!r} is version {version}, which belongs to items of version {item_version}. "
            "Start from the champion, or train both."
        )
    return Start(version, item_version)
