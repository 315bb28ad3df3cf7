"""Readers of recorded traces: a file in, plain event arrays out.

Owns file formats and their error messages.  It never touches a zone: replaying events is the business
of verify.py and the engine.  `golden` reads the exact traces that the allocator is judged by.
"""
