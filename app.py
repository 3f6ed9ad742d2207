"""The Space's front door: wraps race and find_lr for the GPU, builds the page, launches."""

import os

import spaces  # isort: skip - before torch, which a ZeroGPU Space must not wake in this process

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the page shows them

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.checkpoint import Checkpoint
from trainer.config import TrainConfig
from trainer.data import ImageData
from trainer.device import choose_device
from trainer.events import Event
from trainer.finder import Finding, Trial, find_lr
from trainer.race import race
from ui.lab import Lab
from ui.language import MIDDLEWARE
from ui.layout import STYLE, build_page
from ui.words import i18n


@spaces.GPU(duration=120)
def race_on_gpu(
    contenders: Sequence[tuple[TrainConfig, Checkpoint | None]], images: ImageData
) -> Iterator[tuple[int, Event]]:
    """race() on the fastest device there is; on ZeroGPU inside a worker that has the GPU."""
    yield from race(contenders, images, device=choose_device())


@spaces.GPU(duration=60)
def find_lr_on_gpu(config: TrainConfig, images: ImageData) -> Iterator[Trial | Finding]:
    """find_lr() where race_on_gpu trains."""
    yield from find_lr(config, images, device=choose_device())


def main() -> None:
    """Builds the page and serves it, on http://127.0.0.1:7860 unless Gradio's environment variables say otherwise."""
    checkpoints = Path(os.environ.get("OPTIMIZER_LAB_CHECKPOINTS") or "checkpoints")
    try:
        lab = Lab(checkpoints=checkpoints, device=choose_device(), race=race_on_gpu, find_lr=find_lr_on_gpu)
    except ValueError as error:
        sys.exit(f"error: {error}")
    page = build_page(lab)
    page.queue(max_size=64, default_concurrency_limit=8)
    page.launch(
        css=STYLE,
        i18n=i18n,
        app_kwargs={"middleware": MIDDLEWARE},
        ssr_mode=False,  # the server would draw the page before the browser has told its language
        footer_links=[],
        run_history=False,
        max_file_size="64mb",
        show_error=False,
    )


if __name__ == "__main__":
    main()
