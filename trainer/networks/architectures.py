"""The networks, and how their weights and pictures lie in memory."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

FAST_LAYERS = ((32, False), (64, True), (64, False), (128, True), (128, False), (256, True), (256, False))
"""The convolutions of `fast`: how many filters each has, and whether the picture is halved after it."""


def quick(num_classes: int, image_size: int, activation: str) -> nn.Sequential:
    """The tutorial's network, known in the field as Caffe's cifar10_quick; 145,578 parameters for ten classes of 32×32.

    Takes float [n, 3, image_size, image_size] and gives logits [n, num_classes].
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 5, padding=2),
            act1=act(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 32, 5, padding=2),
            act2=act(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 5, padding=2),
            act3=act(),
            pool3=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(64 * (image_size // 8) ** 2, 64),
            act4=act(),
            linear2=nn.Linear(64, num_classes),
        )
    )


class Mirrored(nn.Sequential):
    """Layers that see a picture in evaluation twice, as it is and in a mirror, and give the mean of both outputs."""

    def forward(self, pixels: Tensor) -> Tensor:
        """float [n, 3, size, size] to what the last layer gives."""
        outputs = super().forward(pixels)
        return outputs if self.training else (outputs + super().forward(pixels.flip(-1))) / 2


def fast(num_classes: int, image_size: int, activation: str) -> Mirrored:
    """A network in the line of the CIFAR-10 speed runs, for many times quick's work per picture; 1,166,506 parameters.

    Seven 3×3 convolutions, each with batch normalisation, and one linear layer: 86 million multiplications for 32×32.
    A block's first convolution is pooled before it is normalised, as in Jordan (2024, arXiv:2404.00498). Where he
    whitens the pictures by their covariance, the first layer begins here as a cosine transform, which knows no data;
    it learns like every other. As in his evaluation, a picture is also judged by its mirror image. Takes float
    [n, 3, image_size, image_size] and gives logits [n, num_classes].
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    layers, width = OrderedDict(), 3
    for number, (wider, pool) in enumerate(FAST_LAYERS, 1):
        layers[f"conv{number}"] = nn.Conv2d(width, wider, 3, padding=1, bias=False)
        if pool:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers |= {f"norm{number}": nn.BatchNorm2d(wider), f"act{number}": act()}
        width = wider
    layers |= {"pool": nn.MaxPool2d(image_size // 8), "flatten": nn.Flatten(), "linear": nn.Linear(width, num_classes)}
    with torch.no_grad():
        layers["conv1"].weight.copy_(cosine_filters())
    return Mirrored(layers)


def cosine_filters() -> Tensor:
    """Filters, float32 [32, 3, 3, 3], each of length 1, that take apart what goes together in pictures.

    They are products of the cosines of the DCT-II (Ahmed, Natarajan & Rao, 1974), close to the principal components of
    natural pictures, with grey and two differences of colours: all of grey but the finest, the four coarsest of each
    difference. Then all again with the sign turned, because ReLU lets but one sign through.
    """
    cosines = torch.cos(torch.pi / 3 * torch.outer(torch.arange(3), torch.arange(3) + 0.5))
    waves = torch.einsum("uh,vw->uvhw", cosines, cosines)
    coarse = waves[:2, :2].flatten(0, 1)
    parts = (((1, 1, 1), waves.flatten(0, 1)[:8]), ((1, 0, -1), coarse), ((1, -2, 1), coarse))
    filters = torch.cat([torch.einsum("c,nhw->nchw", torch.tensor(colours).float(), some) for colours, some in parts])
    filters /= torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)
    return torch.cat([filters, -filters])


ARCHITECTURES = {"quick": quick, "fast": fast}


def memory_format(device: torch.device) -> torch.memory_format:
    """How pictures and weights lie in memory where a network trains on a device.

    channels_last is the faster way, but not on Apple's GPUs: torch's gradients are wrong there for batch normalisation
    (pytorch/pytorch#175189), and max-pooling's end the process (#175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
