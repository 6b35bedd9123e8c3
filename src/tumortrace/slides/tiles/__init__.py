"""Patches out of annotated slides: labels, samples, files, pictures."""
