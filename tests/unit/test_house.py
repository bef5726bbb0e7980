"""Rules of the house that no linter knows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# what `evaluation` may use of `wuerstchen` beyond drawing pictures: plain plumbing, and parameters counted
PLUMBING = {
    "wuerstchen.assets",
    "wuerstchen.files",
    "wuerstchen.independent",
    "wuerstchen.linear",
    "wuerstchen.progress",
    "wuerstchen.seeds",
    "wuerstchen.shards",
    "wuerstchen.sizes",
    "wuerstchen.usage",
    "wuerstchen.weights",
}


def sources(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_measuring_network_is_never_trained_on():
    """Lite2 measures; were it also in a loss or in the compressor, its distances would flatter the model."""
    assert any("lite2" in path.read_text(encoding="utf-8").lower() for path in sources("evaluation"))
    guilty = [path.name for path in sources("wuerstchen") if "lite2" in path.read_text(encoding="utf-8").lower()]
    assert guilty == ["assets_table.py"]  # where every file is listed


@pytest.mark.parametrize("package", ["wuerstchen", "evaluation"])
def test_imports_flow_one_way(package):
    forbidden = ["study_app", "workflow"] + ["evaluation"] * (package == "wuerstchen")
    for path in sources(package):
        assert not [name for name in imports(path) if name.split(".")[0] in forbidden], path


def test_evaluation_draws_with_the_models_only_through_generators():
    for path in sources("evaluation"):
        if path.parent.name == "generators":
            continue
        used = {name for name in imports(path) if name.startswith("wuerstchen.")}
        wrong = {name for name in used if not any(name == p or name.startswith(f"{p}.") for p in PLUMBING)}
        assert not wrong, (path, wrong)
