"""A loop of one's own in JAX: a step compiled by `jax.jit`."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, channels_last, serve

Weights = dict[str, jax.Array]


def epochs(task: Task) -> Epochs:
    weights = jax.tree.map(jnp.asarray, channels_last(task.weights))
    velocity = jax.tree.map(jnp.zeros_like, weights)
    rng = np.random.default_rng(0)
    while True:
        start = time.perf_counter()
        for chosen in rng.permutation(len(task.labels)).reshape(-1, BATCH_SIZE):
            weights, velocity = _step(weights, velocity, task.images[chosen], task.labels[chosen])
        jax.block_until_ready(weights)
        yield time.perf_counter() - start, task.loss(np.asarray(_outputs(weights, task.test_images)))


@jax.jit
def _step(weights: Weights, velocity: Weights, images: jax.Array, labels: jax.Array) -> tuple[Weights, Weights]:
    gradients = jax.grad(_loss)(weights, images, labels)
    velocity = jax.tree.map(lambda old, new: MOMENTUM * old + new, velocity, gradients)
    return jax.tree.map(lambda weight, change: weight - LR * change, weights, velocity), velocity


def _loss(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(_outputs(weights, images))
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def _outputs(weights: Weights, images: jax.Array) -> jax.Array:
    for layer in ("conv1", "conv2", "conv3"):
        images = jax.lax.conv_general_dilated(
            images, weights[f"{layer}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        images = jax.nn.relu(images + weights[f"{layer}.bias"])
        images = _pooled(images)
    features = images.reshape(len(images), -1)
    features = jax.nn.relu(features @ weights["linear1.weight"] + weights["linear1.bias"])
    return features @ weights["linear2.weight"] + weights["linear2.bias"]


def _pooled(images: jax.Array) -> jax.Array:
    # Not by jax.lax.reduce_window, whose gradient is slow on a CPU.
    count, height, width, channels = images.shape
    return images.reshape(count, height // 2, 2, width // 2, 2, channels).max((2, 4))


if __name__ == "__main__":
    serve(epochs)
