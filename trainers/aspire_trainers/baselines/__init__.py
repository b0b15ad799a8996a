"""The scores that ASPIRE is compared with, on the same answers."""
