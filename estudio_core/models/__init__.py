"""Embedding models: pooling, prefixes, freezing, storage, and the aggregation of parts into objects."""
