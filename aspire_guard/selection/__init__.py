"""Metrics of selective prediction, calibration and thresholds."""
