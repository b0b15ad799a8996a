"""The evaluators that score answers, and the folders that hold trained ones."""
