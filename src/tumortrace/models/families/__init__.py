"""Network families: a file here is a family, found by itself."""
