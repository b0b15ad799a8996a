"""The infrastructure of a training run: logs, progress, several processes."""
