"""The colours of the charts: readable on both themes, and different for people with any colour blindness."""

from itertools import combinations

import numpy as np
import pytest

from trainer.palette import COLORS, PLAN

WHITE, DARK = "#ffffff", "#121723"  # what charts stand on in the two themes
LEAST_CONTRAST = 3.0  # of WCAG 2.2 for graphics
LEAST_DIFFERENCE = 25.0  # CIE 1976; 2.3 is just noticeable for large areas side by side
# How a linear RGB colour appears without one kind of cone: Machado, Oliveira and Fernandes 2009, table 1, severity 1.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> np.ndarray:
    """The linear RGB values of a colour such as "#3060e4"."""
    values = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """The CIE L*a*b* values of a linear RGB colour under daylight (D65)."""
    x, y, z = TO_XYZ @ rgb / (0.9505, 1.0, 1.089)
    x, y, z = (np.cbrt(value) if value > 0.008856 else 7.787 * value + 16 / 116 for value in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """WCAG's contrast between two colours, from 1 to 21."""
    low, high = sorted(TO_XYZ[1] @ linear(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_every_two_curves_differ(vision):
    """With full colour vision and without one kind of cone."""
    seen = [lab(np.clip(np.array(VISION[vision]) @ linear(color), 0, 1)) for color in COLORS]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > LEAST_DIFFERENCE


@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_every_curve_stands_out_from_the_page(ground):
    """In both themes."""
    assert min(contrast(color, ground) for color in (*COLORS, PLAN)) >= LEAST_CONTRAST
