"""The part of a script that trains and tests, epoch after epoch."""

from trainer.runs.exports.script.formatting import indented
from trainer.runs.exports.script.network import learning_parameters, normalizes_by_batch
from trainer.runs.exports.script.optimizer import has_schedule
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS


def make_loop(config: TrainConfig) -> list[str]:
    """Returns the lines of the loop over the epochs."""
    order = [
        f'seed = int(hashlib.sha256(f"{config.seed}/{{epoch}}".encode()).hexdigest(), 16)',
        "order[:] = np.random.default_rng(seed).permutation(len(order))",
    ]
    steps_here = has_schedule(config) and config.scheduler_unit == "epoch" and config.scheduler != "plateau"
    is_schedule_free = OPTIMIZERS[config.optimizer].is_schedule_free
    epoch = [
        *(order if config.shuffle else []),
        *(["network.train()"] if normalizes_by_batch(config) else []),
        *(["optimizer.train()"] if is_schedule_free else []),
        "loss_sum = 0.0",
        "for images, labels in loader:",
        *indented([*_forward(config), *_backward(config), "loss_sum += loss.item()"]),
        *(["scheduler.step()"] if steps_here else []),
        *(_average(config) if is_schedule_free else []),
        'print(f"epoch {epoch}: train loss {loss_sum / len(loader):.4f}, sum of batch losses {loss_sum:.4f}")',
        *_test(config),
    ]
    count = ["step = 0"] if config.zero_grad_every > 1 else []
    return [*_second_pass(config), *count, f"for epoch in range(1, {config.epochs + 1}):", *indented(epoch)]


def _forward(config: TrainConfig) -> list[str]:
    before = []
    if config.flip or config.shift:
        image = "crop(image)" if config.shift else "image"
        image = f"flip({image})" if config.flip else image
        before.append("# Random, but not the same draws as in Optimizer Lab: the losses differ a little.")
        before.append(f"images = torch.stack([{image} for image in images])")
    if config.precision == "float16":
        before.append("images, labels = images.cuda(), labels.cuda()")
    return [*before, *_compute(config)]


def _compute(config: TrainConfig) -> list[str]:
    lines = ["outputs = network(images / 255)", "loss = loss_function(outputs, labels)"]
    if config.precision == "float32":
        return lines
    device = "cuda" if config.precision == "float16" else "cpu"
    return [f'with torch.autocast("{device}", torch.{config.precision}):', *indented(lines)]


def _backward(config: TrainConfig) -> list[str]:
    every = config.zero_grad_every
    loss = f"loss / {every}" if every > 1 else "loss"
    if config.precision == "float16":
        backward, step = f"scaler.scale({loss}).backward()", ["scaler.step(optimizer)", "scaler.update()"]
    else:
        backward, step = f"({loss}).backward()" if every > 1 else "loss.backward()", ["optimizer.step()"]
    if has_schedule(config) and config.scheduler_unit == "batch":
        step.append("scheduler.step()")
    if every > 1:
        condition = f"if step % {every} == 0:  # until then, gradients add up"
        return [backward, "step += 1", condition, *indented([*step, "optimizer.zero_grad()"])]
    if OPTIMIZERS[config.optimizer].is_sharpness_aware:
        step[0] = "optimizer.step(again)"
    if not every and OPTIMIZERS[config.optimizer].is_schedule_free:
        parameters = learning_parameters(config)
        step = [
            f"gradients = [p.grad.clone() for p in {parameters}]  # the step overwrites them",
            *step,
            f"for p, gradient in zip({parameters}, gradients):",
            "    p.grad.copy_(gradient)",
        ]
    clear = "optimizer.zero_grad()" if every else "# optimizer.zero_grad() is missing: gradients add up for ever"
    return [clear, backward, *step]


def _second_pass(config: TrainConfig) -> list[str]:
    """Returns the definition of SAM's second pass over a batch, whose gradients the step uses."""
    if not OPTIMIZERS[config.optimizer].is_sharpness_aware:
        return []
    body, norms = ["optimizer.zero_grad()", *_compute(config), "loss.backward()"], []
    if normalizes_by_batch(config):  # the running means are those of the first pass
        norms = ["norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]", ""]
        freeze, thaw = (
            ["for layer in norms:", f"    layer.track_running_stats = {is_tracking}"] for is_tracking in (False, True)
        )
        body = [*freeze, *body, *thaw]
    return [*norms, "", "def again():  # at the worst point near the weights", *indented(body), "", ""]


def _average(config: TrainConfig) -> list[str]:
    """Returns the lines that give the network its average weights, and batch normalisation statistics of them."""
    if not normalizes_by_batch(config):
        return ["optimizer.eval()  # the average of the weights"]
    return [
        "optimizer.eval()  # the average of the weights, whose statistics are not known yet",
        "norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]",
        "for layer in norms:",
        "    layer.reset_running_stats()",
        "    layer.momentum = None",
        "some = train_images[:: -(-len(train_images) // 5000)]",
        "with torch.no_grad():",
        "    for images in some.tensor_split(-(-len(some) // 500)):",
        "        network(images / 255)",
    ]


def _test(config: TrainConfig) -> list[str]:
    output = "network(images.cuda() / 255).cpu()" if config.precision == "float16" else "network(images / 255)"
    is_smoothed, is_fast = config.label_smoothing > 0, config.model == "fast"
    # The same average as trainer.networks.architectures.Mirrored.
    mirror = [f"    mirror = torch.cat([{output} for images in test_images.flip(-1).split(500)])"]
    return [
        *(["network.eval()  # batch normalisation by its running mean"] if normalizes_by_batch(config) else []),
        "with torch.no_grad():",
        f"    outputs = torch.cat([{output} for images in test_images.split(500)])",
        *([*mirror, "outputs = (outputs + mirror) / 2"] if is_fast and config.flip else []),
        f"test_loss = {'nn.functional.cross_entropy' if is_smoothed else 'loss_function'}(outputs, test_labels)",
        "accuracy = (outputs.argmax(1) == test_labels).float().mean()",
        *(["scheduler.step(test_loss)"] if config.scheduler == "plateau" else []),
        'print(f"         test loss {test_loss:.4f}, accuracy {accuracy:.2%}")',
    ]
