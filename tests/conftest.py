"""What several tests share."""

from pathlib import Path

import pytest
import yaml
from trees import ROOT, copy_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree of its own."""
    return copy_tree(tmp_path)


@pytest.fixture
def config() -> dict:
    """The default study's config."""
    return yaml.safe_load((ROOT / "config" / "emoji.yaml").read_text(encoding="utf-8"))
