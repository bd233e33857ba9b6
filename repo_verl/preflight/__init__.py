"""What would stop a run, found before Ray starts. No import of torch or verl."""
