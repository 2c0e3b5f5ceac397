"""What wants a GPU: timings, profiles, tests, and the record of what was run."""
