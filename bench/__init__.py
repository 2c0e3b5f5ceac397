"""Benchmarks: `python -m bench.run CASE`. What they found stands in RESULTS.md."""
