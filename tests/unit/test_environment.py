import importlib.metadata
import re
from pathlib import Path

import yaml

from workflow.pins import environment, pins

ROOT = Path(__file__).parents[2]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_has_the_pins_of_requirements() -> None:
    packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert "python=3.11" in packages
    pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    assert dict(line.split("==") for line in pip) == pins()
    assert (ROOT / "environment.yml").read_text(encoding="utf-8") == environment(pins()), "run `make pins`"


def test_every_pin_has_a_hash_and_no_address() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins()) > 100
    for block in blocks:
        assert re.match(r"[\w.-]+==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+$", block), block
    assert "://" not in text


def test_direct_requirements_are_pinned() -> None:
    pinned = pins()
    direct = [
        line.strip() for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    for line in direct:
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            assert canonical(name) in pinned, name
            assert not version or pinned[canonical(name)] == version


def test_what_runs_here_is_what_is_pinned() -> None:
    wrong = {
        name: importlib.metadata.version(name)
        for name, version in pins().items()
        if importlib.metadata.version(name).partition("+")[0] != version
    }
    assert wrong == {}
