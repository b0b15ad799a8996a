"""The command `aspire-guard`, with the subcommands of the core."""
