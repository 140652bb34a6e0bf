"""What the tasks of `<plugin>__fine_tune` share: the run's sessions, the process that trains, and its trials."""
