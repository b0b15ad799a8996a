"""The language-model side: the only room of the guard that needs torch."""
