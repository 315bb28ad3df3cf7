"""Where batches run: this thread, threads, processes, or machines of a cluster."""
