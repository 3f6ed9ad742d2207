"""The networks, OptimizerLabModel and classification."""
