"""What the tasks of `<plugin>__initialize` that adapt the base model have: a teacher's scores, and the report."""
