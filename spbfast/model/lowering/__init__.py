"""From validated configuration to the arrays that kernels take."""
