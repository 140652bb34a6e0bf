"""What orchestration costs: from a moved alias to a release, from a trigger to the first task, between the steps."""
