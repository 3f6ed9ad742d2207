"""English and Chinese."""
