"""Which source files a program is made of, so that a cheap step is redone when one of them changes."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def sources(module: str, root: Path = ROOT) -> list[str]:
    """The file of a module of this project and of all modules of this project that it imports, sorted.

    Paths are relative to `root`. What a program loads at run time by other means than `import` is not seen.
    """
    found: dict[str, list[str]] = {}
    waiting = [module]
    while waiting:
        path = _path(waiting.pop(), root)
        if path is not None and path not in found:
            found[path] = imports(root / path)
            waiting += found[path]
    return sorted(found)


@cache  # a plan asks for the same files for every rule that depends on code
def imports(path: Path) -> list[str]:
    """Names of all modules that a source file imports, at its top or inside a function."""
    names, waiting = [], [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        # no expression has an import in it, and most of a file is expressions
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    return names


def _path(module: str, root: Path) -> str | None:
    place = module.replace(".", "/")
    for path in (f"{place}.py", f"{place}/__init__.py"):
        if (root / path).is_file():
            return path
    return None
