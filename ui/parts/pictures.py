"""Pictures on the page: the input for a visitor's own, the gallery of test pictures, and pictures inside of HTML."""

import base64
from typing import Any

import gradio as gr
import torch
from anyio import CapacityLimiter
from torch import Tensor

from trainer.images import picture
from trainer.images.image_data import ImageData
from ui.i18n.words import i18n
from ui.lab import Lab
from ui.parts.shared import AT_ONCE, sent_with

# How many pictures are decoded and classified at a time: a large one takes memory. Waiting for the Hub does not count.
AT_A_TIME = CapacityLimiter(4)


def picture_input(*, height: int, elem_id: str) -> gr.Image:
    """Adds the input for a visitor's picture to the page being built.

    Its handlers have `preprocess=False` and pass the file to `uploaded`: gr.Image would open an untrusted picture with
    Pillow.
    """
    return gr.Image(
        label=i18n("Your picture"),
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        image_mode=None,
        height=height,
        buttons=[],
        elem_id=elem_id,
    )


def samples_gallery(lab: Lab, chosen: gr.Image, *, columns: int, elem_id: str, api_name: str) -> gr.Gallery:
    """Adds the gallery of test pictures to the page being built; a click makes one of them the chosen picture."""
    gallery = gr.Gallery(
        show_label=False,
        columns=columns,
        height=150,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        format="png",
        elem_id=elem_id,
    )

    def press(event: gr.EventData) -> Any:
        return sample_picture(lab, sent_with(event, "index"))

    gallery.select(press, None, chosen, api_name=api_name, **AT_ONCE)
    return gallery


def sample_picture(lab: Lab, index: Any) -> Any:
    """The test picture at an index of the gallery, uint8 [size, size, 3]; None if there is none."""
    pictures = samples(lab.images)
    return pictures[index][0] if type(index) is int and 0 <= index < len(pictures) else None


def samples(images: ImageData | None) -> list[tuple[Any, str]]:
    """The first test picture, uint8 [size, size, 3], and the name of each of the first ten classes."""
    found: list[tuple[Any, str]] = []
    if images is None:
        return found
    for label, name in enumerate(images.class_names[:10]):
        indices = torch.nonzero(images.test.labels == label)
        if len(indices):
            found.append((images.test.images[int(indices[0])].permute(1, 2, 0).numpy(), name))
    return found


def data_url(pixels: Tensor) -> str:
    """The address of a picture, uint8 [3, height, width], that contains its PNG."""
    png = picture.torchvision().io.encode_png(pixels.contiguous())
    return "data:image/png;base64," + base64.b64encode(png.numpy().tobytes()).decode()
