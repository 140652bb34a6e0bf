"""What can be trained on the clicks of a log, each in a module of its own."""
