"""`python app.py` in the ZeroGPU mode of `spaces`, on a machine that has no GPU.

Replaces two functions that `spaces` calls when a worker starts: `init`, which initializes CUDA, and `move`, which
copies tensors created before the launch (the app creates none) to the GPU. A slice is shortened to about one second, or
one epoch if that is longer. Everything else is unchanged.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import spaces  # noqa: F401 - before torch
from spaces.zero import torch as cuda

cuda.init = lambda nvidia_uuid: None
cuda.move = lambda callback=None: None

import ui.jobs.zerogpu  # noqa: E402

ui.jobs.zerogpu.LONGEST_SECONDS = 1

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "app.py"), run_name="__main__")
