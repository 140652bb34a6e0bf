"""What the tasks of `<plugin>__improve` share: sessions, moved vectors, and the report."""
