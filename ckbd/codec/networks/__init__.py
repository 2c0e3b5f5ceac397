"""g_a and g_s of a codec: in strips, on a CPU, in kernels, and what pixels are to them."""
