"""The memory that training takes, measured in separate processes."""

import subprocess
import sys
from statistics import median

import pytest

pytest.importorskip("resource", reason="this system does not report a process's peak memory")

pytestmark = pytest.mark.slow

_MEBIBYTE = 1 << 20

# Random pictures take as much memory as any others.
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
# Not getrusage's peak, which a process inherits from its parent.
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
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that malloc keeps varies by mebibytes
        print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
"""


def numbers_printed_by(code: str) -> list[int]:
    """Returns the numbers that a process prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return [int(line) for line in ended.stdout.split()]


@pytest.mark.parametrize(("model", "num_tests"), [("quick", 10_000), ("fast", 1000)])
def test_the_peak_with_50000_pictures(model, num_tests):
    """Is below 1.5 GB during the first evaluation and the first batches of an epoch."""
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc")
    (peak,) = numbers_printed_by(LARGE.replace("MODEL_TESTS", str(num_tests)).replace("MODEL", model))
    assert 150 * _MEBIBYTE < peak * 1024 < 1.5e9


def test_no_growth_from_epoch_to_epoch():
    """The last ten of 30 epochs take as much memory as the ten before."""
    if sys.platform != "linux":
        pytest.skip("resident memory is read from /proc")
    resident = numbers_printed_by(LONG)
    assert len(resident) == 31
    assert median(resident[21:]) - median(resident[11:21]) < _MEBIBYTE
