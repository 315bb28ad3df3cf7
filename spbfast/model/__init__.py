"""The simulated machine: its state, the compiled verbs that change it, and what builds and runs it."""
