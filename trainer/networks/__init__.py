"""The networks, and how one classifies a picture."""
