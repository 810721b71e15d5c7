"""Sizes that all layouts share, in points (1/72 inch)."""

MARGIN, GAP, WIDTH = 22.0, 7.0, 560.0
"""Around the page, between tiles, and the width of a page."""

TITLE, SMALL, LEADING = 15.0, 7.0, 9.5
"""Text sizes of the title and of everything small, and the distance between two small lines."""

TINY, TINY_LEADING = 5.5, 7.0
"""Text size of what a tight crop proves, below each patch, and the distance between two such lines."""
