"""Preprocessing and augmentation of whole batches."""
