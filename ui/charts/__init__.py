"""Vega-Lite charts, and what keeps one drawn while its data moves."""
