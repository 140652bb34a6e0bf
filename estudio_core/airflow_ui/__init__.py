"""The Estudio page in Airflow's interface, shipped through the entry point `airflow.plugins`."""
