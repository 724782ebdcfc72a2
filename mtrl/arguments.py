"""The command line of a program whose options are one dataclass, as those of `mtrl.evaluate` and `mtrl.group`."""

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from mtrl.cli import error
from mtrl.flags import Option, UsageError, flag_of, printable
from mtrl.settings import convert, nearest

__all__ = ["read"]


Options = TypeVar("Options")


def read(
    options_class: type[Options], argv: Sequence[str] | None, program: str, others: list[str] | None = None
) -> Options:
    """Read a command line; print the help, or what is wrong with it, and end the program where that is the answer.

    The last of repeated flags holds, except for flags marked `tyro.conf.UseAppendAction`, which gather their values.

    Args:
        options_class: A dataclass; its fields are flags, but for one that is marked `tyro.conf.Positional`.
        argv: The words after the program's name; those of this process where None.
        program: What the help calls the program.
        others: Gets the flags that are none of these, with their values; without it they are refused.
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help") for word in argv):
        return tyro.cli(options_class, args=("--help",), prog=program, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        return _read(options_class, argv, program, others)
    except UsageError as problem:
        error(str(problem))


def _read(options_class: type[Options], argv: Sequence[str], program: str, others: list[str] | None) -> Options:
    """Raise a UsageError where a flag is unknown, a value has the wrong type, or something is missing."""
    hints = typing.get_type_hints(options_class)
    positional = _marked(options_class, tyro.conf.Positional[Any])
    repeatable = _marked(options_class, tyro.conf.UseAppendAction[Any])
    given: dict[str, list[Option]] = {}
    for name, option in _options(argv, hints, positional, others):
        given.setdefault(name, []).append(option)
    values: dict[str, Any] = {}
    for name, found in given.items():
        if name in positional | repeatable:
            words = tuple(word for option in found for word in option.words)
            values[name] = convert(dataclasses.replace(found[-1], words=words), hints[name])
        else:
            values[name] = convert(found[-1], hints[name])
    for entry in dataclasses.fields(options_class):  # pyright: ignore[reportArgumentType] - it is a dataclass
        if entry.name not in values and entry.default is dataclasses.MISSING:
            what = entry.name.upper() if entry.name in positional else flag_of(entry.name)
            raise UsageError(f"{what} is missing; {program} --help explains it")
    return options_class(**values)


def _marked(options_class: type, marked: Any) -> set[str]:
    """Return the fields with the marks of `marked`, an annotated type."""
    marks = set(marked.__metadata__)
    hints = typing.get_type_hints(options_class, include_extras=True)
    return {name for name, hint in hints.items() if marks & set(getattr(hint, "__metadata__", ()))}


def _options(
    argv: Sequence[str], hints: Mapping[str, object], positional: set[str], others: list[str] | None
) -> Iterator[tuple[str, Option]]:
    """Yield the name of a field and what was given to it."""
    flags = [flag_of(name) for name in hints if name not in positional]
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            if not positional:
                raise UsageError(f"{printable(word)}: expected a flag. Choices: {', '.join(flags)}.")
            name = next(iter(positional))
            yield name, Option(words=(word,), flag=name.upper())
            continue
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        is_known = flag.startswith("--") and flag_of(name) in flags
        if not is_known and others is not None:
            others += [word, *_values(rest)]
            continue
        if not is_known:
            raise UsageError(f"{printable(flag)}: no such flag.{nearest(flag, flags)} Choices: {', '.join(flags)}.")
        if equals:
            words = [value]
        elif hints[name] is bool:
            words = ["True"]
        else:
            words = [rest.pop(0)] if rest and not _is_flag(rest[0]) else []
        yield name, Option(words=tuple(words), flag=flag)


def _values(rest: list[str]) -> Iterator[str]:
    """Take the words before the next flag."""
    while rest and not _is_flag(rest[0]):
        yield rest.pop(0)


def _is_flag(word: str) -> bool:
    """Tell flags from values: negative numbers are values."""
    try:
        float(word)
    except ValueError:
        return word.startswith("-")
    return False
