"""What HTTP costs: the service beside the searches, statements and inserts that it carries out."""
