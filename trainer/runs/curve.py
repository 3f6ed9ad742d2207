"""A run's curves as a picture, for its model card."""

from trainer.runs.run import Run

CURVE_FILE = "curve.png"

_PIXELS_PER_POINT = 2  # screens are sharp


def draw(run: Run) -> bytes:
    """A PNG of train and test loss and of test accuracy over the epochs; the epochs are whole, the accuracy 0–1."""
    import vl_convert  # which takes half a second, and only whoever publishes needs

    return vl_convert.vegalite_to_png(_spec(run), scale=_PIXELS_PER_POINT)


def _spec(run: Run) -> dict:
    """The Vega-Lite chart (https://vega.github.io/vega-lite/docs/)."""
    losses = [
        {"epoch": row.epoch, "loss": loss, "curve": curve}
        for row in run.history
        for curve, loss in (("train", row.train_loss), ("test", row.test_loss))
        if loss is not None
    ]
    accuracies = [{"epoch": row.epoch, "accuracy": row.test_accuracy} for row in run.history]
    epoch = {"field": "epoch", "type": "quantitative", "axis": {"tickMinStep": 1, "format": "d"}}
    colors = {"domain": ["train", "test"], "range": ["#3b82f6", "#f97316"]}
    color = {"field": "curve", "type": "nominal", "scale": colors, "legend": {"title": None, "orient": "top"}}
    loss = {"field": "loss", "type": "quantitative"}
    accuracy = {"field": "accuracy", "type": "quantitative", "title": "test accuracy"}
    accuracy |= {"scale": {"domain": [0, 1]}, "axis": {"format": ".0%"}}
    size = {"width": 340, "height": 220, "mark": {"type": "line", "point": True}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "hconcat": [
            {**size, "data": {"values": losses}, "encoding": {"x": epoch, "y": loss, "color": color}},
            {
                **size,
                "mark": {**size["mark"], "color": colors["range"][1]},
                "data": {"values": accuracies},
                "encoding": {"x": epoch, "y": accuracy},
            },
        ],
    }
