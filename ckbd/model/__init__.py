"""Networks and their numbers: trainable, exported, read from a file."""
