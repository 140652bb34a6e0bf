"""Ranking by words: BM25 over the words that PostgreSQL reads in a text, and its sum with the similarity of vectors."""
