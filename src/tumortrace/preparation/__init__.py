"""Data looked at and made ready: explored before training, and rewritten once as a cohort of its own."""
