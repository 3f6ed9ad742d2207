"""The optimizers and the defaults of their settings. Standard library only."""

from trainer.settings.fields import Row

# The packages' names and defaults, except for defaults that would not train well here: those were chosen by trials
# (benchmarks/README.md). Left out on purpose: `maximize` (it climbs the loss); `foreach`, `fused`, `capturable` and
# `differentiable`, which change speed but no result; of torch's, LBFGS (it is for full batches), SparseAdam (sparse
# gradients), Muon (matrices only; `muon` is for whole networks), ASGD (its result is an average, which nothing here
# would evaluate) and Rprop (it reads lr only at its first step: no schedule would have an effect).
OPTIMIZERS = {
    row.name: row
    for row in (
        Row(
            name="sgd",
            about="Steps straight down the gradient; momentum keeps some of the last direction.",
            paper="On the importance of initialization and momentum in deep learning (Sutskever et al. 2013)",
            link="https://proceedings.mlr.press/v28/sutskever13.html",
            defaults={"lr": 0.02, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False},
        ),
        Row(
            name="adam",
            about="Gives every weight its own step size, from the means of its gradient and of the gradient's square.",
            paper="Adam: A Method for Stochastic Optimization (Kingma & Ba 2015)",
            link="https://arxiv.org/abs/1412.6980",
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
            paper="Decoupled Weight Decay Regularization (Loshchilov & Hutter 2019)",
            link="https://arxiv.org/abs/1711.05101",
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
            paper="Neural Networks for Machine Learning, lecture 6e (Hinton 2012)",
            link="https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
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
            paper="Adaptive Subgradient Methods for Online Learning (Duchi et al. 2011)",
            link="https://jmlr.org/papers/v12/duchi11a.html",
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
            paper="ADADELTA: An Adaptive Learning Rate Method (Zeiler 2012)",
            link="https://arxiv.org/abs/1212.5701",
            defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
        ),
        Row(
            name="nadam",
            about="Adam with Nesterov momentum.",
            paper="Incorporating Nesterov Momentum into Adam (Dozat 2016)",
            link="https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
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
            paper="On the Variance of the Adaptive Learning Rate and Beyond (Liu et al. 2020)",
            link="https://arxiv.org/abs/1908.03265",
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
            paper="Adam: A Method for Stochastic Optimization (Kingma & Ba 2015)",
            link="https://arxiv.org/abs/1412.6980",
            defaults={"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        ),
        Row(
            name="adafactor",
            about="Adam that saves memory: it keeps squared gradients by row and column instead of one per weight.",
            paper="Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (Shazeer & Stern 2018)",
            link="https://arxiv.org/abs/1804.04235",
            defaults={"lr": 0.05, "beta2_decay": -0.8, "d": 1.0, "weight_decay": 0.0},
        ),
        Row(
            name="lion",
            about="Moves every weight by the same amount, up or down: only the sign of its momentum counts.",
            paper="Symbolic Discovery of Optimization Algorithms (Chen et al. 2023)",
            link="https://arxiv.org/abs/2302.06675",
            defaults={"lr": 0.001, "betas": (0.9, 0.99), "weight_decay": 0.1},
        ),
        Row(
            name="adan",
            about="Adam with Nesterov momentum that is estimated from the change of the gradient.",
            paper="Adan: Adaptive Nesterov Momentum Algorithm (Xie et al. 2023)",
            link="https://arxiv.org/abs/2208.06677",
            defaults={"lr": 0.01, "betas": (0.98, 0.92), "beta3": 0.99, "eps": 1e-8, "weight_decay": 0.02},
        ),
        Row(
            name="mars",
            about="AdamW that makes gradients less noisy by how they have changed since the last batch.",
            paper="MARS: Unleashing the Power of Variance Reduction (Yuan et al. 2024)",
            link="https://arxiv.org/abs/2411.10438",
            defaults={
                "lr": 0.003,
                "betas": (0.95, 0.99),
                "mars_gamma": 0.025,
                "eps": 1e-8,
                "weight_decay": 0.01,
            },
        ),
        Row(
            name="adopt",
            about="Adam that divides by the squares of earlier gradients only, so that it converges with any betas.",
            paper="ADOPT: Modified Adam Can Converge with Any β2 (Taniguchi et al. 2024)",
            link="https://arxiv.org/abs/2411.02853",
            defaults={
                "lr": 0.001,
                "betas": (0.9, 0.9999),
                "eps": 1e-6,
                "weight_decay": 0.0,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="muon",
            about="Steps of equal size in all directions of a weight matrix; AdamW for biases and the last layer.",
            paper="Muon: An optimizer for hidden layers in neural networks (Jordan et al. 2024)",
            link="https://kellerjordan.github.io/posts/muon/",
            defaults={
                "lr": 0.01,
                "adamw_lr": 0.003,
                "momentum": 0.95,
                "nesterov": True,
                "weight_decay": 0.0,
                "ns_steps": 5,
                "adjust_lr_fn": "original",
            },
        ),
        Row(
            name="sgd_schedulefree",
            about="SGD that needs no schedule: it tests an average of its weights instead of lowering lr.",
            paper="The Road Less Scheduled (Defazio et al. 2024)",
            link="https://arxiv.org/abs/2405.15682",
            defaults={"lr": 0.5, "momentum": 0.9, "weight_decay": 5e-4},
            is_schedule_free=True,
        ),
        Row(
            name="adamw_schedulefree",
            about="AdamW that needs no schedule: it tests an average of its weights instead of lowering lr.",
            paper="The Road Less Scheduled (Defazio et al. 2024)",
            link="https://arxiv.org/abs/2405.15682",
            defaults={"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
            is_schedule_free=True,
        ),
        Row(
            name="prodigy",
            about="Adam that finds its own lr while it trains; lr only scales what it finds, and stays at 1.",
            paper="Prodigy: An Expeditiously Adaptive Parameter-Free Learner (Mishchenko & Defazio 2024)",
            link="https://arxiv.org/abs/2306.06101",
            defaults={"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "d_coef": 1.0},
        ),
        Row(
            name="sam",
            about="SGD that steps by the gradient at the worst point nearby, to find flat minima; twice the work.",
            paper="Sharpness-Aware Minimization for Efficiently Improving Generalization (Foret et al. 2021)",
            link="https://arxiv.org/abs/2010.01412",
            defaults={"lr": 0.04, "rho": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False},
            is_sharpness_aware=True,
        ),
        Row(
            name="sam_adamw",
            about="AdamW that steps by the gradient at the worst point nearby, to find flat minima; twice the work.",
            paper="Sharpness-Aware Minimization for Efficiently Improving Generalization (Foret et al. 2021)",
            link="https://arxiv.org/abs/2010.01412",
            defaults={"lr": 0.003, "rho": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
            is_sharpness_aware=True,
        ),
    )
}
