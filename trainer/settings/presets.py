"""Presets: settings for a first training and for a better one, found by trials (benchmarks/README.md).

Standard library only.
"""

from trainer.settings.config import TrainConfig

_BOTH = TrainConfig(optimizer="muon", lr=0.02, weight_decay=0.05, batch_size=128)

PRESETS = {
    "minute": _BOTH.changed({"epochs": 3}),
    "thorough": _BOTH.changed({"epochs": 10}),
}
"""The most accurate settings found for `quick`: for about a minute on two processor cores, and for ten epochs."""

FIRST = PRESETS["minute"]
"""What the page opens with."""
