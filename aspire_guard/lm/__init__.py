"""The language-model side of the guard, and its only room that needs torch."""
