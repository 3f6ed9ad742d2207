"""Pieces of work, and where they run."""
