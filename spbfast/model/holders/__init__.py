"""Who holds pages and objects, and how to find them again."""
