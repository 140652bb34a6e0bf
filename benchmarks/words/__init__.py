"""How words can be kept in PostgreSQL: what each way costs to build, to store, to write and to search."""
