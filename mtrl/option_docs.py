"""What a component's `Config` says of its options: value, choices, and the string below each field."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

__all__ = ["OptionDoc", "choices", "describe", "title"]


class OptionDoc(NamedTuple):
    """One option, as a reader sees it."""

    name: str
    """The name of the field."""
    value: str
    text: str
    """What it does, on one line; the words it chooses from at the end."""


def describe(config: Any) -> tuple[OptionDoc, ...]:
    """Return the options of a config with the values they have in it, in the order of its fields."""
    explained = _explanations(type(config))
    hints = typing.get_type_hints(type(config))
    return tuple(
        OptionDoc(
            entry.name,
            _shown(getattr(config, entry.name)),
            explained.get(entry.name, "") + _listed(choices(hints[entry.name])),
        )
        for entry in dataclasses.fields(config)
    )


def title(config: Any) -> str:
    """Return the first line of the config's docstring; empty where it has none."""
    return (inspect.getdoc(type(config)) or "").partition("\n")[0]


def choices(hint: object) -> tuple[str, ...]:
    """Return the words that a value of the type `hint` is chosen from; none where it is no choice."""
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, typing.get_args(hint)))
    return tuple(choice for part in typing.get_args(hint) for choice in choices(part))


def _listed(words: tuple[str, ...]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _explanations(config_class: type) -> dict[str, str]:
    """Return the string that stands below each field in the source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    except OSError:  # a class without source, as in a zipped application
        return {}
    return dict(_field_strings(tree))


def _field_strings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    definition = tree.body[0]
    assert isinstance(definition, ast.ClassDef)
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())
