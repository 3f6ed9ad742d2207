"""`python app.py` in the ZeroGPU mode of `spaces`, on a machine that has no GPU.

Two functions of `spaces` are replaced, both of a worker's beginning: `init`, which wakes CUDA, and `move`, which takes
tensors to the GPU that were made before the launch (the app makes none) and waits for it. All else is as it is, but for
how long a slice is: here about a second, or an epoch where that is longer.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import spaces  # noqa: F401 - before torch
from spaces.zero import torch as cuda

cuda.init = lambda nvidia_uuid: None
cuda.move = lambda callback=None: None

import ui.zerogpu  # noqa: E402

ui.zerogpu.LONGEST_SECONDS = 1

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "app.py"), run_name="__main__")
