"""Phase kernels of the checkerboard model; installed as ckbd.kernels.

`reference` holds the torch twins, which define what every kernel computes.
"""
