"""The command `ckbd`, whose way in is ckbd.cli."""
