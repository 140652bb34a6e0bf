"""Run DAGs one after another with `dag.test()`, in a process of its own: Airflow reads its settings when imported.

Usage: `python -m tests.e2e.run_dags '[["demo_catalog__initialize", {}], ...]'`; prints one JSON line per run.
"""

from __future__ import annotations

import json
import sys

MARK = "RESULT "


def main() -> int:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag()
    if bag.import_errors:
        print(json.dumps({"import_errors": bag.import_errors}))
        return 1
    for dag_id, conf in json.loads(sys.argv[1]):
        run = bag.dags[dag_id].test(run_conf=conf)
        tasks = {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()}
        line = {"dag_id": dag_id, "run_id": run.run_id, "state": str(run.state), "tasks": tasks}
        print(MARK + json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
