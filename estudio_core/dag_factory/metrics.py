"""Numbers of a watch as metrics of Airflow: to StatsD or OpenTelemetry, wherever Airflow's own go."""

from __future__ import annotations

from collections.abc import Mapping

from airflow.sdk.observability import stats


def emit_gauges(plugin: str, release: int, numbers: Mapping[str, float]) -> None:
    """Set the gauges `estudio.<name>`, tagged with plugin and release, and `estudio.<plugin>.<name>`.

    The second is for plain StatsD, which drops tags; Airflow doubles its own metrics the same way.
    """
    for name, value in numbers.items():
        stats.gauge(f"estudio.{name}", value, tags={"plugin": plugin, "release": str(release)})
        stats.gauge(f"estudio.{plugin}.{name}", value, tags={"release": str(release)})
