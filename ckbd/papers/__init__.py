"""The models of the papers, by config, and their streams of version 2."""
