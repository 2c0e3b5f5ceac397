"""A decoder without torch, whose import takes longer than a picture: `ckbd decode` of a few pictures runs it.

NumPy multiplies, ckbd._passes does what is between, one picture at a time on one thread, in float32. Latents are
those of every other decoder; pixels are those of float32 products in another order.
"""
