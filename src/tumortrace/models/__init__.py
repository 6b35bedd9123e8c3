"""Network families, one file each, and the model bundle."""
