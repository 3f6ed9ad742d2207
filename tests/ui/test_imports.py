"""The page's modules import in one direction: app-wide ones, charts, parts, tabs, and the page itself."""

import pytest
from imports import imported, modules_of

import ui

MODULES = modules_of(ui)
# The parts that each part of ui may import, itself included.
APP_WIDE = {"app-wide", "jobs", "i18n"}
ALLOWED = {
    "i18n": {"i18n"},
    "look": {"look"},
    "jobs": {"jobs"},
    "app-wide": APP_WIDE,
    "server": {"server", *APP_WIDE},
    "charts": {"charts", "i18n"},
    "parts": {"parts", "charts", *APP_WIDE},
    "tabs": {"tabs", "parts", "charts", "server", *APP_WIDE},
    "page": {"page", "tabs", "parts", "charts", "server", "look", *APP_WIDE},
}
PAGE = {"ui.page", "ui.api"}


def part_of(module: str) -> str:
    """The part of ui that a module belongs to."""
    if module in PAGE:
        return "page"
    _, first, *inner = module.split(".")
    return first if inner else "app-wide"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    """No module imports a part that is built on top of its own."""
    part = part_of(module)
    wrong = {name for name in imported(MODULES[module]) & MODULES.keys() if part_of(name) not in ALLOWED[part]}
    assert wrong == set()


def test_imports_are_found():
    """Otherwise the test above could not fail."""
    assert {part_of(module) for module in MODULES} == ALLOWED.keys()
    assert "ui.lab" in imported(MODULES["ui.page"])
    assert "ui.i18n.words" in imported(MODULES["ui.page"])
