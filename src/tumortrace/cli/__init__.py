"""Verbs of the command line to functions, nothing else."""
