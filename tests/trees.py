"""What several tests share: copies of the tree, a small folder of captioned pictures, and snakemake itself."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tiny_pictures
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ("workflow", "wuerstchen", "evaluation", "study_app")
PROGRAMS = ("Snakefile", "Makefile", "config", "slurm", *PACKAGES, "tests", "docs")
FILES = ("requirements.in", "requirements.txt", "environment.yml", "pyproject.toml")


def copy_tree(folder: Path) -> Path:
    """A copy of the programs and configs, without results."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in PROGRAMS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, folder / name)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    return folder


def study_tree(folder: Path) -> Path:
    """A copy of the tree with a folder of pictures for the tiny study."""
    tree = copy_tree(folder)
    tiny_pictures.make(tree / "pictures", things=120)
    return tree


def environment() -> dict[str, str]:
    """A user's: what the tests were given of threads and of places to import from must not reach the workflow."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")}


def call(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run `python -m ...` in a folder; both streams end up in `stdout`."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def edit_config(path: Path, **changes) -> Path:
    """Change top-level keys of a YAML config in place."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False), encoding="utf-8")
    return path


def measurements(tree: Path) -> dict[str, object]:
    """What must not depend on how often a run was interrupted: images, scores, robustness, recall, win rates."""
    study = tree / "results" / "tiny"
    found: dict[str, object] = {}
    for path in sorted(study.glob("images/*/*/*.zip")):
        found[str(path.relative_to(study))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in [*study.glob("scores/**/*.json"), *study.glob("robustness/*.json")]:
        found[str(path.relative_to(study))] = json.loads(path.read_text())
    for model, points in json.loads((study / "curve.json").read_text())["models"].items():
        found[f"curve {model}"] = [(point["step"], point["at_10"], point["images_sha256"]) for point in points]
    return found


def start(tree: Path, *arguments: str) -> subprocess.Popen:
    """Start the tiny study as `make` does, in a process group of its own; what it prints goes to run.log."""
    with open(tree / "run.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workflow.run", "--configfile", "tests/tiny.yaml", *arguments],
            cwd=tree,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(tree: Path, run: subprocess.Popen) -> str:
    """Wait for a run that should succeed; returns what all runs in this tree have printed."""
    code = run.wait()
    text = (tree / "run.log").read_text()
    assert code == 0, text[-20000:]
    return text
