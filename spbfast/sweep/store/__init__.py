"""The results directory: what lies where, and how it stays whole."""
