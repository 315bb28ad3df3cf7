"""What a node and its zones are: plain numpy arrays in named tuples, no logic."""
