"""Pixels: decoding, slide readers, stain and ink, preprocessing, augmentation, corruptions."""
