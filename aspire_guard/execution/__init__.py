"""What drives the flows: the loops, sync, async and streamed, and the work that the flows ask for."""
