"""What becomes of a scored answer."""
