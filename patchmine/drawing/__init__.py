"""Text on pages, and matplotlib with settings of its own."""
