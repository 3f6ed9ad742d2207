"""Views of what a network has learned after each epoch."""
