"""How much memory a training takes, measured in processes of their own."""

import subprocess
import sys
from statistics import median

import pytest

pytest.importorskip("resource", reason="this system does not tell a process's peak memory")

pytestmark = pytest.mark.slow

_MEBIBYTE = 1 << 20

# Random pictures: what they show makes no difference to their size.
LARGE = """
import re
from itertools import islice
from pathlib import Path
import torch
from trainer.settings.config import TrainConfig
from trainer.images.image_data import ImageData, Split
from trainer.learning.loop import train

def split(count):
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return Split(images=images, labels=torch.randint(10, (count,)))

data = ImageData(
    name="random", source="random", revision=None, digest="", class_names=tuple("abcdefghij"),
    train=split(50_000), test=split(MODEL_TESTS), path=None, note="",
)
events = train(TrainConfig(model="MODEL", epochs=2, batch_size=64), data)
for event in islice(events, 20):
    pass
events.close()
# Not getrusage's peak, which a process takes over from the one that started it.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""

LONG = """
import ctypes
import resource
from dataclasses import replace
from pathlib import Path
from trainer.settings.config import TrainConfig
from trainer.images.image_data import load_images, subset
from trainer.runs.events import EpochEnded
from trainer.learning.loop import train

data = load_images("synthetic")
data = replace(data, train=subset(data.train, 320), test=subset(data.test, 100))
for event in train(TrainConfig(epochs=30, batch_size=32), data):
    if isinstance(event, EpochEnded):
        ctypes.CDLL(None).malloc_trim(0)  # what is freed, and kept for the next, comes and goes by mebibytes
        print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
"""


def told(code: str) -> list[int]:
    """The numbers that a process prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return [int(line) for line in ended.stdout.split()]


@pytest.mark.parametrize(("model", "num_tests"), [("quick", 10_000), ("fast", 1000)])
def test_the_peak_with_50000_pictures(model, num_tests):
    """Under 1.5 GB through the first evaluation and the first batches of an epoch."""
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc")
    (peak,) = told(LARGE.replace("MODEL_TESTS", str(num_tests)).replace("MODEL", model))
    assert 150 * _MEBIBYTE < peak * 1024 < 1.5e9


def test_no_growth_from_epoch_to_epoch():
    """What is held in the last ten of 30 epochs is what was held in the ten before."""
    if sys.platform != "linux":
        pytest.skip("what a process holds is read from /proc")
    held = told(LONG)
    assert len(held) == 31
    assert median(held[21:]) - median(held[11:21]) < _MEBIBYTE
