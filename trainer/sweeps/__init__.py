"""Sweeps: the same training over a grid of settings, to see which value is best and how forgiving it is."""
