"""One function per task: each takes ids, URIs and parameters, and returns a small JSON-able manifest."""
