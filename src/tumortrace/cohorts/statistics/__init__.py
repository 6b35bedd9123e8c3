"""Numbers of a sample of images: what they look like, by class and by slide or patient."""
