"""A run as other programs read it: its model card, a plain script, a TensorBoard event file."""
