"""A loop of one's own in TensorFlow: a step compiled by `tf.function`, over a `tf.data` pipeline."""

import time

import tensorflow as tf

from benchmarks.peers.keras_fit import first_network, loss_function
from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, serve


def epochs(task: Task) -> Epochs:
    network, loss_of = first_network(task), loss_function()
    optimizer = tf.keras.optimizers.SGD(LR, momentum=MOMENTUM)
    pictures = tf.data.Dataset.from_tensor_slices((task.images, task.labels))
    batches = pictures.shuffle(len(task.labels)).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, network(images, training=True))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    while True:
        start = time.perf_counter()
        for images, labels in batches:
            step(images, labels)
        yield time.perf_counter() - start, task.loss(network(task.test_images).numpy())


if __name__ == "__main__":
    serve(epochs)
