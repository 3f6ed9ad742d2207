"""The Sweep tab: the plan of a sweep on the left, its results on the right."""
