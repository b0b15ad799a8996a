"""The loops that drive the flows (sync, async and streamed), and the work that the flows ask for."""
