"""The pinned packages: read from requirements.txt, and repeated in environment.yml for conda users.

python -m workflow.pins        rewrites environment.yml after requirements.txt has been compiled anew
"""

import argparse
from pathlib import Path

from wuerstchen.files import write_text

ROOT = Path(__file__).parent.parent

ENVIRONMENT = """\
# The same pins as requirements.txt, for conda. Written by `python -m workflow.pins`; do not edit.
name: wuerstchen
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - cxx-compiler
  - pip:
"""


def pins(requirements: Path = ROOT / "requirements.txt") -> dict[str, str]:
    """Version by package name, as a compiled requirements file pins them."""
    found = {}
    for line in requirements.read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.partition("==")
        if equals and not line.startswith((" ", "#")):
            found[name] = rest.split()[0].rstrip(";")
    return found


def environment(found: dict[str, str]) -> str:
    """The text of environment.yml for these pins."""
    return ENVIRONMENT + "".join(f"      - {name}=={version}\n" for name, version in sorted(found.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write environment.yml with the pins of requirements.txt.")
    parser.parse_args(argv)
    write_text(ROOT / "environment.yml", environment(pins()))


if __name__ == "__main__":
    main()
