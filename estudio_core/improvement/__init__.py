"""Moving vectors between two trainings."""
