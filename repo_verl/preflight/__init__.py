"""What a run needs, by estimate, and what would stop it, looked at before Ray starts. No import of torch or verl."""
