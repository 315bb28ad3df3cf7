"""Who asks: actors as rows of demand. Nothing here can see what the allocator answered."""
