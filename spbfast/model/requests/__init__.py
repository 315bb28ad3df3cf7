"""A request from beginning to end: attempts, and the slow path of each class of caller."""
