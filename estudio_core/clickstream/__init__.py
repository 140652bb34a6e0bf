"""The clickstream: sessions, their store, and what they say about relevance."""
