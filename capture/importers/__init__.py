"""Foreign recordings: one module per format."""
