"""Data made ready once: stain, equalisation, super-resolution, written as a cohort of its own."""
