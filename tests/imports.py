"""Finds the modules of a package, and what they import."""

import ast
from pathlib import Path
from types import ModuleType


def modules_of(package: ModuleType) -> dict[str, Path]:
    """Returns the files of a package's modules by their names, without __init__ and __main__."""
    folder = Path(package.__file__).parent
    return {
        ".".join((package.__name__, *path.relative_to(folder).with_suffix("").parts)): path
        for path in folder.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }


def imported(path: Path) -> set[str]:
    """Returns the modules that a file imports, also within its functions; for `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
