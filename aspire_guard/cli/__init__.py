"""The command `aspire-guard` and the subcommands of the core."""
