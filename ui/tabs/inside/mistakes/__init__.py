"""The view of a network's mistakes."""
