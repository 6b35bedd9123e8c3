"""Whole slides: reading, tissue, tiling, heat maps."""
