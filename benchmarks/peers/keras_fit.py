"""Keras on TensorFlow, by `fit`."""

import time

import tensorflow as tf

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, channels_last, serve


def epochs(task: Task) -> Epochs:
    network = first_network(task)
    network.compile(tf.keras.optimizers.SGD(LR, momentum=MOMENTUM), loss_function())
    while True:
        start = time.perf_counter()
        network.fit(task.images, task.labels, batch_size=BATCH_SIZE, verbose=0)
        yield time.perf_counter() - start, task.loss(network(task.test_images).numpy())


def loss_function() -> tf.keras.losses.Loss:
    """Returns the cross-entropy of a network's outputs."""
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def first_network(task: Task) -> tf.keras.Model:
    """Returns the network with the first weights."""
    layers = tf.keras.layers
    network = tf.keras.Sequential([layers.Input(task.images.shape[1:])])
    for number in (1, 2, 3):
        filters = len(task.weights[f"conv{number}.bias"])
        network.add(layers.Conv2D(filters, 5, padding="same", activation="relu"))
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    network.add(layers.Dense(len(task.weights["linear1.bias"]), activation="relu"))
    network.add(layers.Dense(len(task.weights["linear2.bias"])))
    network.set_weights(list(channels_last(task.weights).values()))
    return network


if __name__ == "__main__":
    serve(epochs)
