"""Infrastructure of a training run: logs, progress, several processes."""
