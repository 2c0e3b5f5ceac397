"""The model files of ckbd, which finds them here: nothing to import."""
