"""How a network learns: optimizers, schedules, the training loop and what is built on it."""
