"""The learning-rate schedulers and the defaults of their settings. Standard library only."""

from trainer.settings.fields import Row

# build_scheduler derives a default of None from the run's length or from `lr`, as the field's help says; torch has a
# default for the others.
SCHEDULERS = {
    row.name: row
    for row in (
        Row(name="constant", about="The same lr from the first step to the last.", defaults={}),
        Row(
            name="step",
            about="Multiplies lr by gamma every step_size steps.",
            defaults={"step_size": 5, "gamma": 0.1},
        ),
        Row(
            name="multistep",
            about="Multiplies lr by gamma at each milestone.",
            defaults={"milestones": (6, 9), "gamma": 0.1},
        ),
        Row(name="exponential", about="Multiplies lr by gamma at every step.", defaults={"gamma": 0.8}),
        Row(
            name="cosine",
            about="Lowers lr along half a cosine wave, slowly at both ends.",
            defaults={"T_max": None, "eta_min": 0.0},
        ),
        Row(
            name="onecycle",
            about="Raises lr to its peak, then lowers it far below its first value, once over the whole run.",
            defaults={
                "pct_start": 0.2,
                "anneal_strategy": "cos",
                "cycle_momentum": False,
                "base_momentum": None,
                "max_momentum": None,
                "div_factor": 10.0,
                "final_div_factor": 1e4,
                "three_phase": False,
            },
            unit="batch",
        ),
        Row(
            name="cyclic",
            about="Moves lr up and down between base_lr and lr, again and again.",
            defaults={
                "base_lr": None,
                "step_size_up": None,
                "step_size_down": None,
                "mode": "triangular",
                "gamma": 1.0,
                "cycle_momentum": False,
                "base_momentum": None,
                "max_momentum": None,
            },
            unit="batch",
        ),
        Row(
            name="linear",
            about="Moves lr in a straight line from lr × start_factor to lr × end_factor.",
            defaults={"start_factor": 1.0, "end_factor": 0.0, "total_iters": None},
        ),
        Row(
            name="plateau",
            about="Lowers lr when the test loss has stopped falling for `patience` epochs.",
            defaults={
                "factor": 0.1,
                "patience": 2,
                "threshold": 1e-4,
                "threshold_mode": "rel",
                "cooldown": 0,
                "min_lr": 0.0,
            },
        ),
    )
}
