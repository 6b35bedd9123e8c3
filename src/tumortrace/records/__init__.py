"""Run folders, provenance and crash-safe files."""
