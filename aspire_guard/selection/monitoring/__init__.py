"""Live monitoring of a released threshold's risk."""
