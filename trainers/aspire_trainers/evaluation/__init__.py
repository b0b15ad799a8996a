"""Judged answers, the scores that rank them, and reports."""
