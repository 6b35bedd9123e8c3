"""Labelled images: layouts, audit, splits, patch store, synthetic tissue."""
