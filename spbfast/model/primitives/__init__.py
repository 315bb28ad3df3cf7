"""Building blocks without any notion of memory: counter-based draws and queues in one pool."""
