"""Hand-made descriptors of texture and colour: one file each, found by the registry in `descriptor`."""
