"""What the user asked for, as text: flags over presets, merged by precedence.

This is the first pass over the command line. It settles the names (environment, agent, network, aggregators) and which
words every other option gets. It knows no types and imports no torch, so that a misspelt name is answered at once.
"""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtrl import agents, aggregators, configs, envs, networks
from mtrl.registry import check_entry, check_name

__all__ = [
    "COMPONENTS",
    "NAME_FLAGS",
    "RESUMABLE",
    "Option",
    "Request",
    "UsageError",
    "flag_of",
    "modules",
    "printable",
    "read",
    "read_run",
]

COMPONENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "agent": ("agent", agents.REGISTRY),
    "network": ("network", networks.REGISTRY),
    "critic.aggregator": ("aggregator", aggregators.REGISTRY),
    "actor.aggregator": ("aggregator", aggregators.REGISTRY),
}
"""Key of each replaceable part -> what it is and the registry of its names. The key is its options' prefix too."""

DEFAULTS = {"agent": "mtsac", "network": "mlp", "critic.aggregator": "mean", "actor.aggregator": "mean"}

_IMPORTING = ("env", *COMPONENTS)
"""Keys whose names may hold those of modules."""

NAME_FLAGS = ("env", "aggregator", "critic.aggregator", "actor.aggregator", "network", "agent", "preset", "resume")
"""Keys the first pass reads."""

RESUMABLE = ("total_steps", "device", "workers", "max_hours", "on_nonfinite")
"""Keys that may change when a run is continued: none of them changes what has been learned up to there."""


AUTO = "auto"
"""In the place of a run after --resume: the one in --run-dir, if it has begun."""


MODULES = "MTRL_MODULES"
"""The environment variable with the modules that files may name, separated by commas. The command line may name any."""


class UsageError(ValueError):
    """What the user asked for cannot be done; the message says what was found, what was expected, what is nearest."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """The words given to one flag, and where."""

    words: tuple[str, ...]
    flag: str
    """The flag as it was written, shorthands included."""
    origin: Path | None = None
    """The file it stands in; None for the command line."""
    carried: bool = False
    """Whether it was set for a part that a stronger layer replaced, and holds only if the new part has the option."""

    def __str__(self) -> str:
        return f"{self.flag} (in {self.origin})" if self.origin else self.flag


@dataclass(frozen=True, kw_only=True)
class Request:
    """The settled names and the words of all other options."""

    names: dict[str, str]
    """Keys of `COMPONENTS`, and "env" where the user named one."""
    options: dict[str, Option]
    """Dotted key -> option, shorthands written out."""
    naming: dict[str, Option] = field(default_factory=dict)
    """Keys of `COMPONENTS` -> the option that settled the name; none where it is the default."""
    resume: Path | None = None
    """The run to continue."""
    resumes_if_begun: bool = False
    """Whether to continue the run in the directory named, if there is one (`--resume auto`)."""


def flag_of(key: str) -> str:
    """Return the flag that sets `key`."""
    return "--" + key.replace("_", "-")


def printable(text: str) -> str:
    """Return the text with line breaks and all that would steer a terminal written out as Python does in strings."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def modules(names: Mapping[str, str]) -> set[str]:
    """Return the user's own modules that the names, by key, make this program import."""
    own = {name.partition(":")[0] for key, name in names.items() if key != "env" and ":" in name}
    return own.union(envs.modules(names.get("env", "")))


def read(argv: Sequence[str]) -> Request:
    """Read the command line and the presets it names or implies.

    A default gives way to the preset of the environment's name, that to the presets named, those to the command line.

    Raises:
        UsageError: A name is unknown, a file cannot be read, or names a module that it may not name.
    """
    typed, presets = _command_line(argv)
    resumes_if_begun = "resume" in typed and typed["resume"].words == (AUTO,)
    if resumes_if_begun:
        typed.pop("resume")
        if "run_dir" not in typed:
            raise UsageError("--resume auto needs --run-dir: the folder to begin in, or to continue in")
    if "resume" in typed:
        return _resume(typed, presets)
    layers = [_preset(name) for name in presets] + [typed]
    _check_modules(layers, ())
    chosen = [_name(layer["env"]) for layer in layers if "env" in layer]
    if chosen:
        _check_env(next(layer["env"] for layer in reversed(layers) if "env" in layer))
        implied = chosen[-1].partition(":")[0]
        if implied in configs.names() and implied not in presets:
            layers.insert(0, _preset(implied))
    return dataclasses.replace(_merge(layers), resumes_if_begun=resumes_if_begun)


def read_run(run: Path, trusted: Collection[str] = ()) -> Request:
    """Read the settings that the run in the folder `run` was started with.

    Args:
        run: The folder.
        trusted: Modules that they may name beside those of `MODULES`.

    Raises:
        UsageError: There is no such run, its environment cannot be found here, or it names a module it may not name.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is no run: expected a folder with a config.yaml written by training")
    layer = _layer(file)
    if "env" not in layer or not file.read_bytes().endswith(b"\n"):
        raise UsageError(
            f"{file} is torn: expected whole lines with an `env: NAME` among them, as training writes them"
        )
    _check_modules([layer], trusted)
    _check_env(layer["env"])
    return _merge([layer])


def _resume(typed: dict[str, Option], presets: Sequence[str]) -> Request:
    run = Path(_name(typed.pop("resume")))
    for option in [Option(words=(), flag="--preset")] * bool(presets) + list(typed.values()):
        if option.flag[2:].replace("-", "_") not in RESUMABLE:
            allowed = ", ".join(flag_of(key) for key in RESUMABLE)
            raise UsageError(f"{option.flag} cannot change in a run that is continued; only {allowed} can")
    request = read_run(run)
    return dataclasses.replace(request, options=request.options | typed, resume=run)


def _command_line(argv: Sequence[str]) -> tuple[dict[str, Option], list[str]]:
    """Return the options by key, the last of each, and apart from them all presets in order."""
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("-") and not _is_number(word):
            flag, equals, value = word.partition("=")
            if not flag.startswith("--"):
                raise UsageError(f"unknown flag {flag}: flags begin with two dashes")
            found.append((printable(flag), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            raise UsageError(f"unexpected argument {word!r}: expected a flag such as --env")
    options = {flag[2:].replace("-", "_"): Option(words=tuple(words), flag=flag) for flag, words in found}
    if not all(words for flag, words in found if flag == "--preset"):
        raise UsageError(f"--preset: expected a name ({', '.join(configs.names())}) or the path of a YAML file")
    options.pop("preset", None)
    return options, [word for flag, words in found if flag == "--preset" for word in words]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _preset(name: str) -> dict[str, Option]:
    file = configs.find(name)
    if not file.is_file():
        if name and file.exists():
            raise UsageError(f"--preset: expected a name or a YAML file, got {name!r}, which is none")
        beside = map(str, file.parent.glob("*.yaml"))
        try:
            check_name(configs.names(), "preset", name, also_near=beside)
        except ValueError as error:
            raise UsageError(f"--preset: {error} A path of a YAML file is accepted too.") from error
    return _layer(file)


def _layer(file: Path) -> dict[str, Option]:
    try:
        preset = configs.read(file)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    for key in ("preset", "resume"):
        if key in preset:
            raise UsageError(f"{file}: {key} belongs on the command line")
    return {key: Option(words=words, flag=printable(flag_of(key)), origin=file) for key, words in preset.items()}


def _name(option: Option) -> str:
    if len(option.words) != 1 or not option.words[0]:
        found = repr(" ".join(option.words)) if option.words else "nothing"
        raise UsageError(f"{option}: expected one name, got {found}")
    return option.words[0]


def _check_env(option: Option) -> None:
    try:
        envs.check(_name(option))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _check_modules(layers: Sequence[dict[str, Option]], trusted: Collection[str]) -> None:
    """Raise where a file names a module of somebody's: to import it is to run it, and nothing that is read is run."""
    named = {key: option for layer in map(_write_out, layers) for key, option in layer.items() if key in _IMPORTING}
    allowed = [name for name in os.environ.get(MODULES, "").split(",") if name]
    typed = modules({key: _name(option) for key, option in named.items() if option.origin is None})
    for key, option in named.items():
        foreign = modules({key: _name(option)}) - {*allowed, *typed, *trusted}
        if foreign:
            raise UsageError(
                f"{option}: {_name(option)!r} would import {', '.join(sorted(foreign))}, and what a file names is not "
                f"run unasked; to allow it, set {MODULES}={','.join([*allowed, *sorted(foreign)])} in the environment"
            )


def _merge(layers: Sequence[dict[str, Option]]) -> Request:
    """Merge layers, the weakest first."""
    names = dict(DEFAULTS)
    options: dict[str, Option] = {}
    naming: dict[str, Option] = {}
    for layer in map(_write_out, layers):
        for key, (kind, registry) in COMPONENTS.items():
            if key not in layer:
                continue
            name = _name(layer[key])
            try:
                check_entry(registry, kind, name)
            except ValueError as error:
                raise UsageError(f"{layer[key]}: {error}") from error
            naming[key] = layer[key]
            if name != names[key]:
                names[key] = name
                options = _replaced(options, key)
        if "env" in layer:
            names["env"] = _name(layer["env"])
        options |= {key: option for key, option in layer.items() if key not in NAME_FLAGS}
    return Request(names=names, options=options, naming=naming)


def _write_out(layer: dict[str, Option]) -> dict[str, Option]:
    """Write `aggregator...` out for critic and actor; what names one of them is stronger."""
    short = {key: option for key, option in layer.items() if key.split(".")[0] == "aggregator"}
    long = {f"{part}.{key}": option for key, option in short.items() for part in ("critic", "actor")}
    return long | {key: option for key, option in layer.items() if key not in short}


def _replaced(options: dict[str, Option], component: str) -> dict[str, Option]:
    """Return what remains of `options` when another class takes the place of `component`.

    Options of a method mean nothing to another method, even under one name. Sizes of networks and agents do.
    """
    remaining = {}
    for key, option in options.items():
        if not key.startswith(f"{component}."):
            remaining[key] = option
        elif not component.endswith("aggregator"):
            remaining[key] = dataclasses.replace(option, carried=True)
    return remaining
