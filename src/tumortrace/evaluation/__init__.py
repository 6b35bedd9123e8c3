"""Metrics, intervals, thresholds, calibration: pure functions of a predictions table."""
