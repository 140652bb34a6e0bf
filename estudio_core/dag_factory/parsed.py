"""What Airflow makes of the DAGs of a plugin: built and serialised, as its DAG processor does.

Run as `python -m estudio_core.dag_factory.parsed NAME`, it tells the ids of the DAGs, or why there are none, as JSON.
"""

from __future__ import annotations

import json
import sys

from estudio_core.local.airflow_process import answer


def main(plugin: str) -> None:
    """Print what came of it: `{"dags": [...]}` or `{"problem": "..."}`."""
    from airflow.serialization.serialized_objects import DagSerialization

    from estudio_core.dag_factory import build_dags

    try:
        dags = build_dags(plugin)
        for dag in dags.values():
            json.dumps(DagSerialization.serialize_dag(dag))
    except Exception as error:  # whatever it is, Airflow would show it in place of the DAGs
        answer(json.dumps({"problem": f"{type(error).__name__}: {error}"}))
    else:
        answer(json.dumps({"dags": sorted(dags)}))


if __name__ == "__main__":
    main(sys.argv[1])
