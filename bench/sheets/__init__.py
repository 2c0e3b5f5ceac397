"""The figures and pictures of docs/model-card.md."""
