"""`python -m spbfast.cli` is the `spbfast` command."""

from __future__ import annotations

from spbfast.cli import main

main()
