"""Training, and tables fitted after it."""
