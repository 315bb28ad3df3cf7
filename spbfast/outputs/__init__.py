"""The registry of everything that a simulation may output: variables, event records, runs as datasets."""
