"""The event loops: recorded events and simulated time."""
