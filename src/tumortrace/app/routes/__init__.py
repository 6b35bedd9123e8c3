"""What the server answers to, a file per subject; each has a `router` and is found by itself."""
