"""The optimizers and the defaults of their settings. Standard library only."""

from trainer.settings.fields import Row

# torch's names and defaults, except for defaults that would not train: `lr` suits the default run, and is smaller for
# Adam's relatives than for SGD. Left out on purpose: `maximize` (it climbs the loss); `foreach`, `fused`,
# `capturable` and `differentiable`, which change speed but no result; LBFGS (it needs a closure), SparseAdam (sparse
# gradients), Muon (matrices only), ASGD (its result is an average, which nothing here would evaluate) and Rprop (it
# reads lr only at its first step: no schedule would have an effect).
OPTIMIZERS = {
    row.name: row
    for row in (
        Row(
            name="sgd",
            about="Steps straight down the gradient; momentum keeps some of the last direction.",
            defaults={"lr": 0.02, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False},
        ),
        Row(
            name="adam",
            about="Gives every weight its own step size, from the means of its gradient and of the gradient's square.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "amsgrad": False,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="adamw",
            about="Adam with weight decay applied separately from the gradient, so that it works as intended.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.01,
                "amsgrad": False,
            },
        ),
        Row(
            name="rmsprop",
            about="Divides each step by a running root mean square of the gradient.",
            defaults={
                "lr": 0.001,
                "alpha": 0.99,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "momentum": 0.0,
                "centered": False,
            },
        ),
        Row(
            name="adagrad",
            about="Divides each step by the root of the sum of all squared gradients so far: steps only shrink.",
            defaults={
                "lr": 0.02,
                "lr_decay": 0.0,
                "weight_decay": 0.0,
                "initial_accumulator_value": 0.0,
                "eps": 1e-10,
            },
        ),
        Row(
            name="adadelta",
            about="Adagrad that forgets old gradients; it was designed to need no learning rate.",
            defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
        ),
        Row(
            name="nadam",
            about="Adam with Nesterov momentum.",
            defaults={
                "lr": 0.002,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "momentum_decay": 0.004,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="radam",
            about="Adam that adapts its step sizes only after it has seen enough gradients to trust them.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="adamax",
            about="Adam with the largest recent gradient instead of the root mean square.",
            defaults={"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        ),
    )
}
