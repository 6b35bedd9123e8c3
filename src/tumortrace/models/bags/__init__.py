"""Networks that take a slide's features, tile by tile: one file each, registered in `BAG_ARCHITECTURES`."""
