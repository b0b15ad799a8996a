"""The three stages of ASPIRE, and the steps between them."""
