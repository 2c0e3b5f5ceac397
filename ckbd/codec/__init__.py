"""Bytes to pictures and back: docs/architecture.md has the two journeys."""
