"""The events of a run, the run that they add up to, and its folder on disk."""
