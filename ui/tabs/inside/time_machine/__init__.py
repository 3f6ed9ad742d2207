"""The time machine: a slider over the epochs of a run."""
