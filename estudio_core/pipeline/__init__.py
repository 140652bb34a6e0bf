"""One module per task of the DAGs, with one function of its name.

Each takes ids, URIs and parameters, and returns a small JSON-able manifest. What tasks share is in the packages here.
"""
