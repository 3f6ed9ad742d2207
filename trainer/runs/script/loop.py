"""The part of a script that trains and tests, epoch after epoch."""

from trainer.runs.script.formatting import indented
from trainer.runs.script.optimizer import has_schedule
from trainer.settings.config import TrainConfig


def make_loop(config: TrainConfig) -> list[str]:
    """Returns the lines of the loop over the epochs."""
    order = [
        f'seed = int(hashlib.sha256(f"{config.seed}/{{epoch}}".encode()).hexdigest(), 16)',
        "order[:] = np.random.default_rng(seed).permutation(len(order))",
    ]
    steps_here = has_schedule(config) and config.scheduler_unit == "epoch" and config.scheduler != "plateau"
    epoch = [
        *(order if config.shuffle else []),
        *(["network.train()"] if config.model == "fast" else []),
        "loss_sum = 0.0",
        "for images, labels in loader:",
        *indented([*_forward(config), *_backward(config), "loss_sum += loss.item()"]),
        *(["scheduler.step()"] if steps_here else []),
        'print(f"epoch {epoch}: train loss {loss_sum / len(loader):.4f}, sum of batch losses {loss_sum:.4f}")',
        *_test(config),
    ]
    count = ["step = 0"] if config.zero_grad_every > 1 else []
    return [*count, f"for epoch in range(1, {config.epochs + 1}):", *indented(epoch)]


def _forward(config: TrainConfig) -> list[str]:
    before, lines = [], ["outputs = network(images / 255)", "loss = loss_function(outputs, labels)"]
    if config.augment:
        before.append("# Random, but not the same draws as in Optimizer Lab: the losses differ a little.")
        before.append("images = torch.stack([flip(crop(image)) for image in images])")
    if config.precision == "float16":
        before.append("images, labels = images.cuda(), labels.cuda()")
    if config.precision != "float32":
        device = "cuda" if config.precision == "float16" else "cpu"
        lines = [f'with torch.autocast("{device}", torch.{config.precision}):', *indented(lines)]
    return [*before, *lines]


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
    clear = "optimizer.zero_grad()" if every else "# optimizer.zero_grad() is missing: gradients add up for ever"
    return [clear, backward, *step]


def _test(config: TrainConfig) -> list[str]:
    output = "network(images.cuda() / 255).cpu()" if config.precision == "float16" else "network(images / 255)"
    is_smoothed, is_fast = config.label_smoothing > 0, config.model == "fast"
    # The same average as trainer.networks.architectures.Mirrored.
    mirror = [f"    mirror = torch.cat([{output} for images in test_images.flip(-1).split(500)])"]
    return [
        *(["network.eval()  # batch normalisation by its running mean"] if is_fast else []),
        "with torch.no_grad():",
        f"    outputs = torch.cat([{output} for images in test_images.split(500)])",
        *([*mirror, "outputs = (outputs + mirror) / 2"] if is_fast else []),
        f"test_loss = {'nn.functional.cross_entropy' if is_smoothed else 'loss_function'}(outputs, test_labels)",
        "accuracy = (outputs.argmax(1) == test_labels).float().mean()",
        *(["scheduler.step(test_loss)"] if config.scheduler == "plateau" else []),
        'print(f"         test loss {test_loss:.4f}, accuracy {accuracy:.2%}")',
    ]
