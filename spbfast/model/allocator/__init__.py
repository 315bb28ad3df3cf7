"""Where pages come from: the exact layer, judged by golden traces."""
