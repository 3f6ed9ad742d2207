"""The part of a script that defines the network and its loss."""

from trainer.images.readers import SIZE
from trainer.networks.architectures import FAST_LAYERS
from trainer.networks.pretrained import bundled_network
from trainer.runs.exports.script.formatting import call, indented
from trainer.runs.exports.script.images import ImageSource
from trainer.settings.config import TrainConfig


def make_network(config: TrainConfig, source: ImageSource) -> list[str]:
    """Returns lines that define the network, with the same initial weights as in the app.

    Raises UserError if they are those of a bundled network that does not exist.
    """
    is_fast, is_pretrained = config.model == "fast", config.pretrained != "none"
    statistics = "mean, std" if is_pretrained else "(mean / 255).tolist(), (std / 255).tolist()"
    layers = [
        *([f"v2.Normalize({statistics})"] if config.normalize else []),
        *(_fast(source.num_classes) if is_fast else _quick(config, source.num_classes)),
        *(["nn.Softmax(dim=1)"] if config.softmax else []),
    ]
    device = '"cuda", ' if config.precision == "float16" else ""
    first_filters = _first_filters(f"network[{int(config.normalize)}][0]") if is_fast and not is_pretrained else []
    return [
        *(_block(config) if is_fast else []),
        f"torch.manual_seed({config.seed})",
        *(_statistics(config, source) if config.normalize else []),
        *call("network = nn.Sequential", layers),
        *(_convolutions(config) if is_pretrained else first_filters),
        f"network.to({device}memory_format=torch.channels_last)  # a faster memory layout for the weights",
    ]


def learning_parameters(config: TrainConfig) -> str:
    """Returns the parameters that are trained, as source."""
    return "learning" if config.pretrained == "frozen" else "network.parameters()"


def normalizes_by_batch(config: TrainConfig) -> bool:
    """Returns whether the network has batch normalisation that uses the batch's own statistics in training."""
    return config.model == "fast" and config.pretrained != "frozen"


def make_loss(config: TrainConfig) -> list[str]:
    """Returns the line that defines the loss function."""
    smoothing = f"label_smoothing={config.label_smoothing}" if config.label_smoothing else ""
    return [f"loss_function = nn.CrossEntropyLoss({smoothing})"]


# Layers with random weights are created in the order of trainer.networks.architectures, so that they are the same.
def _quick(config: TrainConfig, num_classes: str) -> list[str]:
    act = {"none": "", "relu": ", nn.ReLU()"}[config.activation]
    return [
        f"nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(2){act})",
        f"nn.Sequential(nn.Conv2d(32, 32, 5, padding=2), nn.MaxPool2d(2){act})",
        f"nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2){act})",
        f"nn.Sequential(nn.Flatten(), nn.Linear({64 * (SIZE // 8) ** 2}, 64){act}, nn.Linear(64, {num_classes}))",
    ]


def _fast(num_classes: str) -> list[str]:
    blocks, width = [], 3
    for wider, pool in FAST_LAYERS:
        blocks.append(f"block({width}, {wider}{', nn.MaxPool2d(2)' if pool else ''})")
        width = wider
    return [*blocks, f"nn.Sequential(nn.MaxPool2d({SIZE // 8}), nn.Flatten(), nn.Linear({width}, {num_classes}))"]


def _block(config: TrainConfig) -> list[str]:
    layers = ["nn.Conv2d(width, wider, 3, padding=1, bias=False)", "*pool", "nn.BatchNorm2d(wider)"]
    layers += {"none": [], "relu": ["nn.ReLU()"]}[config.activation]
    return ["", "def block(width, wider, *pool):", *indented(call("return nn.Sequential", layers)), "", ""]


def _statistics(config: TrainConfig, source: ImageSource) -> list[str]:
    if config.pretrained != "none":
        trained = bundled_network(config.model).config
        return [f"mean = {trained['mean']}", f"std = {trained['std']}"]
    # In float64 because the app computes them exactly: a difference in the last digit grows with every step.
    lines = ["std, mean = torch.std_mean(train_images.double(), (0, 2, 3), correction=0)  # of each colour"]
    if source.can_be_uniform:
        lines.append("std = std.clamp(min=0.255)  # it is 0 for a colour that is the same in all pictures")
    return lines


def _convolutions(config: TrainConfig) -> list[str]:
    """Returns lines that start from the convolutions of a bundled network, and freeze them."""
    lines = [
        "# The convolutions of a network trained on CIFAR-10: run this script in the folder of Optimizer Lab.",
        f'weights = load_file("checkpoints/{config.model}/model.safetensors")',
        'for kind, name in ((nn.Conv2d, "conv"), (nn.BatchNorm2d, "norm")):',
        "    for number, layer in enumerate((layer for layer in network.modules() if isinstance(layer, kind)), 1):",
        '        layer.load_state_dict({key: weights[f"network.{name}{number}.{key}"] for key in layer.state_dict()})',
    ]
    if config.pretrained != "frozen":
        return lines
    lines += [
        "        layer.requires_grad_(False)",
        "learning = [weight for weight in network.parameters() if weight.requires_grad]",
    ]
    return [
        *lines,
        *(["network.eval()  # keeps the means of the batch normalisation"] if config.model == "fast" else []),
    ]


def _first_filters(layer: str) -> list[str]:
    """Returns lines that compute trainer.networks.architectures.cosine_filters and set them as the layer's weights."""
    return [
        "# The first filters: waves in grey and in two differences of colours, each with both signs.",
        "cosines = torch.cos(torch.pi / 3 * torch.outer(torch.arange(3), torch.arange(3) + 0.5))",
        'waves = torch.einsum("uh,vw->uvhw", cosines, cosines)',
        "grey, colour = waves.flatten(0, 1)[:8], waves[:2, :2].flatten(0, 1)",
        "parts = ([1.0, 1.0, 1.0], grey), ([1.0, 0.0, -1.0], colour), ([1.0, -2.0, 1.0], colour)",
        'filters = torch.cat([torch.einsum("c,nhw->nchw", torch.tensor(mix), some) for mix, some in parts])',
        "filters /= torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)",
        f"{layer}.weight.data.copy_(torch.cat([filters, -filters]))",
    ]
