"""Other people's coders, kernels and models, as the benchmarks call them."""
