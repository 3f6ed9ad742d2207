"""Which pixels an answer depends on: the gradient times the input, smoothed over noise, and occlusion."""

import torch
from torch import Tensor

from trainer.networks.architectures import memory_format
from trainer.networks.model import OptimizerLabModel
from trainer.palette import TEST, TRAIN

NUM_SAMPLES = 16
NOISE = 0.15  # standard deviation, as a share of the range of pixels; the paper recommends 0.1 to 0.2

_PATCHES = 8  # that fit along a side


def smooth_grad(
    model: OptimizerLabModel,
    picture: Tensor,
    label: int,
    *,
    num_samples: int = NUM_SAMPLES,
    noise: float = NOISE,
    seed: int = 0,
) -> Tensor:
    """Returns how much each pixel speaks for a class, or against it if below 0: float32 [size, size] on the CPU.

    It is the gradient of the class's logit, averaged over copies of the picture with Gaussian noise (Smilkov et al.
    2017, arXiv:1706.03825), times the pixel's difference from the mean colour, summed over the channels. For a linear
    network, the pixels and the logit of the mean colour add up to the logit of the picture.

    `picture` is uint8 [3, size, size] as the network gets it; `label` is the index of the class. The model must be in
    evaluation mode; it is not changed.
    """
    generator = torch.Generator().manual_seed(seed)
    copies = picture / 255 + noise * torch.randn(num_samples, *picture.shape, generator=generator)
    copies = _normalised(model, copies).requires_grad_()
    # Without a last Softmax, whose gradients vanish where the network is sure.
    network = model.network[:-1].eval() if model.softmax else model.network
    (gradients,) = torch.autograd.grad(network(copies)[:, label].sum(), copies)
    return (gradients.mean(0) * _normalised(model, picture.unsqueeze(0) / 255)[0]).sum(0).float().cpu()


def occlusion(model: OptimizerLabModel, picture: Tensor, label: int) -> Tensor:
    """Returns by how much the probability of a class falls where the picture is hidden: float32 [size, size], −1 to 1.

    A square of the mean colour, a quarter of the picture wide, is moved over it in steps of half its side (Zeiler &
    Fergus 2014, arXiv:1311.2901); a pixel has the mean over the squares that hide it. The arguments are those of
    `smooth_grad`.
    """
    size = model.image_size
    side, step = size * 2 // _PATCHES, size // _PATCHES
    starts = range(-step, size, step)
    masks = torch.zeros(len(starts) ** 2, 1, size, size, dtype=torch.bool)
    for number, mask in enumerate(masks):
        top, left = starts[number // len(starts)], starts[number % len(starts)]
        mask[:, max(0, top) : top + side, max(0, left) : left + side] = True
    grey = (255 * model.mean[0]).round().byte().cpu()
    hidden = torch.where(masks, grey, picture)
    probabilities = model.probabilities(torch.cat([picture.unsqueeze(0), hidden]).to(model.mean.device))[:, label].cpu()
    falls = (probabilities[0] - probabilities[1:]).view(-1, 1, 1)
    cover = masks.squeeze(1).float()
    return (cover * falls).sum(0) / cover.sum(0)


def overlay(picture: Tensor, values: Tensor, largest: float) -> Tensor:
    """Returns a grey picture, uint8 [3, size, size], coloured where `values` [size, size] are above or below 0.

    A value of ±`largest` or beyond hides the pixel below it.
    """
    grey = picture.float().mean(0)
    share = (values.abs() / max(largest, 1e-12)).clamp(max=1)
    color = torch.where(values > 0, _color(TEST), _color(TRAIN))
    return (grey * (1 - share) + color * share).round().byte()


def _color(text: str) -> Tensor:
    """Returns a colour such as "#3060e4" as [3, 1, 1], 0–255."""
    return torch.tensor(list(bytes.fromhex(text[1:])), dtype=torch.float32).view(3, 1, 1)


def _normalised(model: OptimizerLabModel, pixels: Tensor) -> Tensor:
    """Returns pixels, float [n, 3, size, size] from 0 to 1, as the network's first layer gets them."""
    device = model.mean.device
    return ((pixels.to(device) - model.mean) / model.std).contiguous(memory_format=memory_format(device))
