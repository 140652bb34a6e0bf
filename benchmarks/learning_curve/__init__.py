"""How far what is served gets with more sessions, on queries whose relevance is known completely."""
