"""The report: one self-contained HTML page per results directory.

page.py gathers what the page shows, tables.py and measures.py have its numbers, figures.py its pictures,
templates/page.html its layout. All that comes from users is escaped; nothing is loaded from the network.
"""

from __future__ import annotations

from spbfast.results.report.page import build_report

__all__ = ["build_report"]
