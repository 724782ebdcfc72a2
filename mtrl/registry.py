"""Look names up in registries: literal dicts of name -> "module:Class".

A registry names its classes as text, so that names, their errors and the short help need no heavy import.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping


def resolve(registry: Mapping[str, str], kind: str, name: str) -> type:
    """Import and return the class that `registry` holds under `name`.

    Args:
        registry: Name -> "module:Class".
        kind: What the registry holds, for the error ("aggregator").
        name: The name to look up.

    Raises:
        ValueError: `name` is not registered; the message lists the choices and the nearest one.
    """
    check_name(registry, kind, name)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_name(choices: Iterable[str], kind: str, name: str, *, also_near: Iterable[str] = ()) -> None:
    """Do nothing where `name` is one of `choices`.

    Args:
        choices: The valid names.
        kind: What they name, for the error ("aggregator").
        name: The name to look up.
        also_near: Names that are too many to list and may yet be the one that was meant.

    Raises:
        ValueError: `name` is none of them; the message lists the choices and the nearest name.
    """
    choices = tuple(choices)
    if name in choices:
        return
    near = difflib.get_close_matches(name, (*choices, *also_near), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {kind} {name!r}.{hint} Choices: {', '.join(choices)}.")
