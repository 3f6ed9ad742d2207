"""The Train tab: settings, races and the learning-rate finder on the left, the training on the right."""
