"""The charts of the Inside tab."""
