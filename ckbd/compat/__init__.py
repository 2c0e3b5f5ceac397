"""Other libraries' interfaces, with what they compute and write, on ckbd's own code."""
