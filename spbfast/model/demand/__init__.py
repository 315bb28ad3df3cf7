"""Who asks for memory, and what happens when the answer is no."""
