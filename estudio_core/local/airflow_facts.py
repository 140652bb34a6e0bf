"""What the Airflow of an environment says of itself, and the pools that it lacks, made through its own client.

Run as `python -m estudio_core.local.airflow_facts '{"pool": [slots, "description"]}'`, it tells them and changes
nothing but these pools.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estudio_core.local.airflow_process import answer, ask

_LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@dataclass(frozen=True)
class AirflowFacts:
    """An Airflow as its configuration and its metadata database show it."""

    version: str
    home: str
    """Its `AIRFLOW_HOME`."""
    dags_folder: str
    bundles: list[dict[str, Any]]
    """Its DAG bundles: name, classpath and kwargs of each."""
    problem: str | None = None
    """Why its database cannot be asked."""
    slots: dict[str, int] = field(default_factory=dict)
    """Of all its pools, by name."""
    made: list[str] = field(default_factory=list)
    """Pools that were asked for and not there."""

    @property
    def stub_folder(self) -> Path | None:
        """Folder in which this Airflow finds new files: that of its first local DAG bundle."""
        for bundle in self.bundles:
            if bundle["classpath"] == _LOCAL_BUNDLE:
                return Path(bundle["kwargs"].get("path") or self.dags_folder)
        return None


def ask_airflow(pools: dict[str, tuple[int, str]], environment: dict[str, str]) -> AirflowFacts | None:
    """Return what Airflow says with `environment`, its missing `pools` made; None where it is not installed.

    Args:
        pools: Slots and description by name. A pool that is there stays as it is.
        environment: All variables of the process.

    Raises:
        UnavailableError: it cannot be asked at all.
    """
    if importlib.util.find_spec("airflow") is None:
        return None
    return AirflowFacts(
        **json.loads(ask(__name__, json.dumps(pools), environment, "See what it says itself: airflow info"))
    )


def main(wanted: str) -> None:
    """Print the facts as JSON, after making the pools that are missing."""
    from airflow import __version__
    from airflow.api.client import get_current_api_client
    from airflow.configuration import AIRFLOW_HOME, conf
    from sqlalchemy.exc import SQLAlchemyError

    facts: dict[str, Any] = {
        "version": __version__,
        "home": AIRFLOW_HOME,
        "dags_folder": conf.get_mandatory_value("core", "dags_folder"),
        "bundles": conf.getjson("dag_processor", "dag_bundle_config_list") or [],
    }
    try:
        client: Any = get_current_api_client()
        missing = {
            name: pool
            for name, pool in json.loads(wanted).items()
            if name not in {each[0] for each in client.get_pools()}
        }
        for name, (slots, description) in missing.items():
            client.create_pool(name=name, slots=slots, description=description, include_deferred=False)
        facts |= {"made": list(missing), "slots": {name: int(slots) for name, slots, *_ in client.get_pools()}}
    except SQLAlchemyError as error:
        facts["problem"] = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    answer(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
