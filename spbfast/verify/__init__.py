"""Golden traces against the compiled kernels."""
