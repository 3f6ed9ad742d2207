"""The page's modules import in one direction: app-wide ones, charts, parts, tabs, and the page itself."""

import ast
from pathlib import Path

import pytest

import ui

PACKAGE = Path(ui.__file__).parent
MODULES = {
    ".".join(("ui", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
# The parts that each part of ui may import, itself included.
APP_WIDE = {"app-wide", "i18n"}
ALLOWED = {
    "i18n": {"i18n"},
    "app-wide": APP_WIDE,
    "charts": {"charts", "i18n"},
    "parts": {"parts", "charts", *APP_WIDE},
    "tabs": {"tabs", "parts", "charts", *APP_WIDE},
    "page": {"page", "tabs", "parts", "charts", *APP_WIDE},
}
PAGE = {"ui.page", "ui.api"}


def part_of(module: str) -> str:
    """The part of ui that a module belongs to."""
    if module in PAGE:
        return "page"
    _, first, *inner = module.split(".")
    return first if inner else "app-wide"


def imported(path: Path) -> set[str]:
    """The modules of ui that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    """No module imports a part that is built on top of its own."""
    part = part_of(module)
    wrong = {name for name in imported(MODULES[module]) if part_of(name) not in ALLOWED[part]}
    assert wrong == set()


def test_imports_are_found():
    """Otherwise the test above could not fail."""
    assert {part_of(module) for module in MODULES} == ALLOWED.keys()
    assert "ui.lab" in imported(MODULES["ui.page"])
    assert "ui.i18n.words" in imported(MODULES["ui.page"])
