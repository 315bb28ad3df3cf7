"""The decorators of compiled code and how it is linked; the only place that knows numba."""
