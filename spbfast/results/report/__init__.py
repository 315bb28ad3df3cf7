"""The report: one self-contained HTML page per results directory.

build.py gathers what the page shows, figures.py draws it, templates/page.html lays it out. Everything that
comes from users is escaped; nothing is loaded from the network.
"""

from __future__ import annotations

from spbfast.results.report.page import build_report

__all__ = ["build_report"]
