"""The subcommands `train`, `evaluate` and `sample`."""
