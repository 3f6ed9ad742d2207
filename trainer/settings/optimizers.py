"""The optimizers and the defaults of their settings. Standard library only."""

from trainer.settings.fields import Row

# torch's names and defaults, except where a default would not train: `lr` suits the default run, Adam's
# relatives get less than SGD. Left out on purpose: `maximize` (it climbs the loss), the switches that change speed
# and not results (`foreach`, `fused`, `capturable`, `differentiable`), LBFGS (wants a closure), SparseAdam (sparse
# gradients), Muon (matrices only), ASGD (what counts is its average, which nothing here would evaluate) and Rprop (it
# reads lr at its first step alone: no schedule would reach it).
OPTIMIZERS = {
    row.name: row
    for row in (
        Row(
            name="sgd",
            about="Steps straight down the gradient; momentum remembers the way it was going.",
            defaults={"lr": 0.02, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False},
        ),
        Row(
            name="adam",
            about="Gives every weight a step size of its own, from the mean and the square of its gradients.",
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
            about="Adam with the weight decay taken out of the gradient, where it works as meant.",
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
            about="Divides each step by the root of all squared gradients so far: steps only ever shrink.",
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
            about="Adagrad with a fading memory; it was made to need no learning rate at all.",
            defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
        ),
        Row(
            name="nadam",
            about="Adam with Nesterov's look ahead.",
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
            about="Adam that waits with its own step sizes until it has seen enough gradients to trust them.",
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
            about="Adam with the largest recent gradient in place of the mean square.",
            defaults={"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        ),
    )
}
