"""Looking inside a network as it learns."""
