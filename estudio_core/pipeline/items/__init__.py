"""Items on their way into a collection: texts, parts, vectors, rows; what shards, syncs and single writes share."""
