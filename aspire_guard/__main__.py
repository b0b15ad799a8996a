"""`python -m aspire_guard` is the command `aspire-guard`, for launchers that take a module."""

from aspire_guard.cli.app import main

if __name__ == "__main__":
    main()
