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

_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
"""The tags of what is written without one: a word, a list, a mapping."""

_LONGEST_QUOTE = 60
"""Characters of a file that an error repeats."""


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
        # Composed and not constructed: nothing is built from the file but its words.
        tree = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>",', " at")
        raise ValueError(f"{file} is not YAML: {reason}") from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply, expected lines of the form `key: value`") from error
    if tree is None:  # an empty file
        return {}
    if not isinstance(tree, yaml.MappingNode) or tree.tag not in _PLAIN_TAGS:
        found = _first_line(file)
        raise ValueError(f"{file} must hold lines of the form `key: value`, found {found!r}")
    preset: dict[str, tuple[str, ...]] = {}
    for key, words in _flatten(tree, "", file, set()):
        if key in preset:
            raise ValueError(f"{file} sets {key} twice")
        preset[key] = words
    return preset


def _flatten(
    tree: yaml.MappingNode, prefix: str, file: Path, visited: set[int]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the keys below a mapping, dotted, with their words.

    Args:
        tree: The mapping.
        prefix: Of its keys.
        file: Where it stands, for errors.
        visited: Mappings already read: through aliases a few lines can hold more keys than there is memory, or no end.
    """
    if id(tree) in visited:
        raise ValueError(f"{file}: {prefix.removesuffix('.')} repeats a mapping by an alias; write it out")
    visited.add(id(tree))
    for name, value in tree.value:
        key = prefix + _word(name, "a key", file).replace("-", "_")
        if isinstance(value, yaml.MappingNode):
            _check_tag(value, key, file)
            yield from _flatten(value, f"{key}.", file, visited)
            continue
        _check_tag(value, key, file)
        values = value.value if isinstance(value, yaml.SequenceNode) else [value]
        words = [_word(one, key, file) for one in values]
        yield key, tuple(_SPELLINGS.get(word.lower(), word) for word in words)


def _word(node: yaml.Node, place: str, file: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{file}: {place} must be a value or a list of values")  # noqa: TRY004 - the user's mistake
    _check_tag(node, place, file)
    return node.value


def _check_tag(node: yaml.Node, place: str, file: Path) -> None:
    """Refuse a type written out, as YAML's way to name Python objects: values are typed by the flags they set."""
    if node.tag not in _PLAIN_TAGS:
        raise ValueError(f"{file}: {place} has the YAML tag {node.tag!r}, expected a plain value")


def _first_line(file: Path) -> str:
    """Return the beginning of what stands in the file, short enough for a message."""
    return file.read_text(encoding="utf-8").strip().partition("\n")[0][:_LONGEST_QUOTE]
