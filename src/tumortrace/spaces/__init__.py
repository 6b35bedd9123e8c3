"""Shipped search spaces, one YAML file each; `tumortrace.training.tuning.space` says what they may hold."""
