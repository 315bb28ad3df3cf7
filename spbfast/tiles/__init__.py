"""Pageblocks as tiles: their two bytes, kinds and colours (pageblocks.py), and tiles as SVG (markup.py)."""
