"""What several tests share."""

from pathlib import Path

import pytest
import yaml
from trees import ROOT, copy_tree, finish, start, study_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree of its own."""
    return copy_tree(tmp_path)


@pytest.fixture
def config() -> dict:
    """The default study's config."""
    return yaml.safe_load((ROOT / "config" / "emoji.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run without interruption; tests leave it as it was."""
    tree = study_tree(tmp_path_factory.mktemp("whole"))
    finish(tree, start(tree))
    return tree
