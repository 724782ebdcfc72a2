"""Presets: one YAML file of flags each, found by its name. A new one needs that file and nothing else."""

from pathlib import Path

__all__ = ["FOLDER", "names", "path"]

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Return the names of the presets that come with the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def path(name: str) -> Path:
    """Return the file of the preset `name`, which exists if and only if the preset does."""
    return FOLDER / f"{name}.yaml"
