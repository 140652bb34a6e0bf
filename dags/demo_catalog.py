"""Airflow DAGs of the search plugin `demo_catalog`."""

from estudio_core.dag_factory import build_dags

globals().update(build_dags("demo_catalog"))
