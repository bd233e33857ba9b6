"""What works around verl 0.9.1: one module for each place, which names verl's file and line and when it can go."""
