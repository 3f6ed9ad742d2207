"""The Classify tab: what a trained network takes pictures for, and why."""
