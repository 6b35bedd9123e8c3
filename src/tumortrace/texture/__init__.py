"""Hand-made descriptors of texture and colour."""
