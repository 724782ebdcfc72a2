"""Presets: one YAML file of flags each, found by its name. A new one needs that file and nothing else.

A file holds flags without their dashes: `total_steps: 60000`, `network.hidden_dims: [64, 64]`. Mappings may be nested.
Values are kept as the words that stand there, to be typed by whoever types the command line: YAML itself would read
`1e-3` as a text and `no` as a truth value.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

__all__ = ["FOLDER", "find", "names", "read"]

FOLDER = Path(__file__).parent

# YAML's spellings of values that Python spells otherwise.
_SPELLINGS = {
    "": "None",
    "~": "None",
    "null": "None",
    "true": "True",
    "false": "False",
    ".inf": "inf",
    "-.inf": "-inf",
    ".nan": "nan",
}


def names() -> tuple[str, ...]:
    """Return the names of the presets that come with the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def find(name: str) -> Path:
    """Return the file of the preset `name`: one of `names()`, else the path of a YAML file."""
    return FOLDER / f"{name}.yaml" if name in names() else Path(name)


def read(file: Path) -> dict[str, tuple[str, ...]]:
    """Read a preset.

    Returns:
        Key -> words of its value, keys dotted and with underscores: {"network.hidden_dims": ("64", "64")}.

    Raises:
        ValueError: The file is no mapping of keys to values or lists of values; the message names the place.
    """
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # builds text only
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not YAML: {reason}") from error
    if tree in (None, ""):  # an empty file
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{file} must hold lines of the form `key: value`")  # noqa: TRY004 - the user's mistake
    preset: dict[str, tuple[str, ...]] = {}
    for key, words in _flatten(tree, "", file):
        if key in preset:
            raise ValueError(f"{file} sets {key} twice")
        preset[key] = words
    return preset


def _flatten(tree: dict[str, object], prefix: str, file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, value in tree.items():
        key = prefix + str(name).replace("-", "_")
        if isinstance(value, dict):
            yield from _flatten(value, f"{key}.", file)
            continue
        values = value if isinstance(value, list) else [value]
        words = tuple(_SPELLINGS.get(word.lower(), word) for word in values if isinstance(word, str))
        if len(words) != len(values):
            raise ValueError(f"{file}: {key} must be a value or a list of values")
        yield key, words
