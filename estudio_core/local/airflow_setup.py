"""Create or migrate Airflow's metadata database and its pools, through Airflow's own commands in one process.

Run as `python -m estudio_core.local.airflow_setup POOLS.json` with the environment of `airflow_environment`. One
process, because importing Airflow takes several seconds and each `airflow` command would pay for it.
"""

from __future__ import annotations

import sys


def run_commands(*commands: list[str]) -> None:
    """Run Airflow's commands one after another in this process: their arguments are seen by nobody else."""
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    for command in commands:
        arguments = parser.parse_args(command)
        arguments.func(arguments)


def main(pools_file: str) -> None:
    """Run `airflow db migrate` and `airflow pools import`."""
    run_commands(["db", "migrate"], ["pools", "import", pools_file])


if __name__ == "__main__":
    main(sys.argv[1])
