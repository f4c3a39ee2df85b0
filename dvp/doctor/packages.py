"""The installed packages against the ranges that are known to work."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from dvp.doctor.findings import FAULT, OK

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
DISTRIBUTION = "dynamic-visual-prompting"  # of pyproject.toml, whose metadata say the same where it is installed
SHOWN = ("torch", "pytorch-lightning", "transformers", "sacred", "pyarrow")


def look_at_packages(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every required package that is missing or outside its range."""
    wanted, found = list(requirements()), {}
    for one in wanted:
        try:
            found[one.name] = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield FAULT, f"{one.name} is not installed: pip install '{one}'"
            continue
        if not one.specifier.contains(found[one.name], prereleases=True):
            yield FAULT, f"{one.name} {found[one.name]} is not {one.specifier}, as is needed: pip install '{one}'"
    shown = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
    python = ".".join(map(str, sys.version_info[:3]))
    yield OK, f"Python {python}, {shown}; {len(found)} of {len(wanted)} packages are there"


def requirements() -> Iterator[Requirement]:
    """What requirements.txt, or the metadata of the installed package, ask for."""
    if REQUIREMENTS.is_file():
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    else:
        lines = [line for line in metadata.requires(DISTRIBUTION) or () if "extra ==" not in line]
    yield from (Requirement(text) for line in lines if (text := line.partition("#")[0].strip()))
