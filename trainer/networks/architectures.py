"""The networks `quick` and `fast`, and the memory layout of their weights and pictures."""

import functools
from collections import OrderedDict

import torch
from torch import Tensor, nn

FAST_LAYERS = ((32, False), (64, True), (64, False), (128, True), (128, False), (256, True), (256, False))
"""The convolutions of `fast`: the number of filters, and whether a max-pooling halves the picture after them."""


def quick(num_classes: int, image_size: int, activation: str) -> nn.Sequential:
    """Returns the tutorial's network, known as Caffe's cifar10_quick.

    It maps float [n, 3, image_size, image_size] to logits [n, num_classes], and has 145,578 parameters for ten classes
    of 32×32 pictures. `activation` is one of ACTIVATIONS. ReLU comes after the pooling: a maximum passes through it
    either way, so that every value and gradient stays the same, with a quarter of the work.
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 5, padding=2),
            pool1=nn.MaxPool2d(2),
            act1=act(),
            conv2=nn.Conv2d(32, 32, 5, padding=2),
            pool2=nn.MaxPool2d(2),
            act2=act(),
            conv3=nn.Conv2d(32, 64, 5, padding=2),
            pool3=nn.MaxPool2d(2),
            act3=act(),
            flatten=nn.Flatten(),
            linear1=nn.Linear(64 * (image_size // 8) ** 2, 64),
            act4=act(),
            linear2=nn.Linear(64, num_classes),
        )
    )


class Mirrored(nn.Sequential):
    """Layers that return, in evaluation mode, the mean of their outputs for a picture and for its mirror image.

    Jordan (2024, arXiv:2404.00498) evaluates like this.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps float [n, 3, size, size] to the output of the last layer."""
        outputs = super().forward(pixels)
        return outputs if self.training else (outputs + super().forward(pixels.flip(-1))) / 2


def fast(num_classes: int, image_size: int, activation: str) -> nn.Sequential:
    """Returns a network like those of the CIFAR-10 speed runs: more accurate than `quick`, with seven times its work.

    It maps float [n, 3, image_size, image_size] to logits [n, num_classes] by seven 3×3 convolutions, each with batch
    normalisation, and one linear layer: 1,166,506 parameters for ten classes, 86 million multiplications for a 32×32
    picture. `activation` is one of ACTIVATIONS. A block's first convolution is pooled before it is normalised, as in
    Jordan (2024, arXiv:2404.00498). He whitens the pictures by their covariance; here the first layer is initialised
    to a cosine transform instead, which needs no data, and is trained like all others.
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = 3
    for number, (filters, pool) in enumerate(FAST_LAYERS, 1):
        layers[f"conv{number}"] = nn.Conv2d(width, filters, 3, padding=1, bias=False)
        if pool:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers |= {f"norm{number}": nn.BatchNorm2d(filters), f"act{number}": act()}
        width = filters
    layers |= {"pool": nn.MaxPool2d(image_size // 8), "flatten": nn.Flatten(), "linear": nn.Linear(width, num_classes)}
    with torch.no_grad():
        layers["conv1"].get_parameter("weight").copy_(cosine_filters())
    return nn.Sequential(layers)


def cosine_filters() -> Tensor:
    """Returns filters, float32 [32, 3, 3, 3] of norm 1, whose outputs are nearly uncorrelated for natural pictures.

    They are products of the cosines of the DCT-II (Ahmed, Natarajan & Rao, 1974), which are close to the principal
    components of natural pictures, with grey and two differences of colours: all of grey but the finest, and the four
    coarsest of each difference. Each is there with both signs, because ReLU passes only one.
    """
    cosines = torch.cos(torch.pi / 3 * torch.outer(torch.arange(3), torch.arange(3) + 0.5))
    waves = torch.einsum("uh,vw->uvhw", cosines, cosines)
    coarse = waves[:2, :2].flatten(0, 1)
    parts = (((1, 1, 1), waves.flatten(0, 1)[:8]), ((1, 0, -1), coarse), ((1, -2, 1), coarse))
    filters = torch.cat([torch.einsum("c,nhw->nchw", torch.tensor(colours).float(), part) for colours, part in parts])
    filters /= torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)
    return torch.cat([filters, -filters])


ARCHITECTURES = {"quick": quick, "fast": fast}


@functools.cache
def num_parameters(name: str, num_classes: int, image_size: int) -> int:
    """Returns the number of parameters of an architecture, one of ARCHITECTURES."""
    with torch.device("meta"):  # computes nothing, and draws no random numbers
        network = ARCHITECTURES[name](num_classes, image_size, "none")
    return sum(weights.numel() for weights in network.parameters())


def memory_format(device: torch.device) -> torch.memory_format:
    """Returns the memory layout of pictures and weights for training on a device.

    channels_last is faster, but not usable on Apple's GPUs: there torch's gradients of batch normalisation are wrong
    (pytorch/pytorch#175189), and those of max-pooling end the process (#175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
