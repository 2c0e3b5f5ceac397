"""The studies of docs/paper.md."""
