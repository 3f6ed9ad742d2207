"""Image sets: where they come from, how they are read, and the batches made of them."""
