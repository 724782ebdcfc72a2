"""Look names up in registries: literal dicts of name -> "module:Class".

A registry names its classes as text, so that names, their errors and the short help need no heavy import. Where a
name is asked for, MODULE:CLASS is one too: a class of the user's own, in a module that Python finds.
"""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType

_BASES = {
    "agent": "mtrl.interfaces:Agent",
    "aggregator": "mtrl.aggregators.base:Aggregator",
    "network": "mtrl.interfaces:Network",
}
"""What a class of the user's own must be."""


def resolve(registry: Mapping[str, str], kind: str, name: str) -> type:
    """Import and return the class that `registry` holds under `name`, or the one that `name` says is where.

    Args:
        registry: Name -> "module:Class".
        kind: What the registry holds, for the error ("aggregator").
        name: The name to look up, or "module:Class".

    Raises:
        ValueError: `name` is not registered; the message lists the choices and the nearest one. Or the module cannot
            be imported, or has no such class.
    """
    check_entry(registry, kind, name)
    return _load(registry[name]) if name in registry else _import_class(kind, name)


def check_entry(registry: Mapping[str, str], kind: str, name: str) -> None:
    """Do nothing where `name` is registered, or reads as "module:Class". Imports nothing.

    Raises:
        ValueError: It is neither.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        check_name(registry, kind, name)
    elif not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ValueError(f"{kind} {name!r}: expected a registered name, or MODULE:CLASS as in my_module:MyClass")


def import_module(module: str, purpose: str) -> ModuleType:
    """Import a module that the user named.

    Args:
        module: Its dotted name.
        purpose: What needs it, for the error.

    Raises:
        ValueError: It is no such name, or importing it fails, for whatever reason.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{purpose}: expected the name of a module before ':', got {module!r}")
    try:
        return importlib.import_module(module)
    except Exception as problem:  # whatever a module does when it is imported is the user's to read
        raise ValueError(
            f"{purpose}: cannot import module {module!r}: {problem}; expected one that Python "
            "finds from the current directory, PYTHONPATH or what is installed"
        ) from problem


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


def _load(place: str) -> type:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _import_class(kind: str, name: str) -> type:
    module_name, _, attribute = name.partition(":")
    base = _load(_BASES[kind])
    found = {
        key: value
        for key, value in vars(import_module(module_name, f"{kind} {name!r}")).items()
        if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)
        if dataclasses.is_dataclass(getattr(value, "Config", None))
    }
    if attribute in found:
        return found[attribute]
    near = difflib.get_close_matches(attribute, found, n=1, cutoff=0.5)
    hint = f" Did you mean {module_name}:{near[0]}?" if near else ""
    raise ValueError(
        f"{kind} {name!r}: expected a class that has a nested dataclass Config and all methods of "
        f"{_BASES[kind].replace(':', '.')}.{hint} Of these {module_name} has: {', '.join(found) or 'none'}."
    )
