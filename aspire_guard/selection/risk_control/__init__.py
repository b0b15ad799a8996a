"""Thresholds and policies whose risk is controlled."""
