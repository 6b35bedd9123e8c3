"""Shipped search spaces, one YAML file each; `tumortrace.training.space` says what they may hold."""
