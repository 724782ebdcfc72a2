"""The settings of a run, typed: every option converted to the type of the field it sets, every config built."""

import contextlib
import dataclasses
import difflib
import io
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import tyro
import yaml

from mtrl import envs
from mtrl.flags import COMPONENTS, NAME_FLAGS, Option, Request, UsageError, flag_of
from mtrl.option_docs import choices
from mtrl.registry import resolve

if TYPE_CHECKING:
    import mtrl.replay
    import mtrl.schedule
    from mtrl.aggregators.base import Aggregator

__all__ = ["Settings", "build", "convert", "nearest", "valid_flags"]

_METHODS = ("critic.aggregator", "actor.aggregator")

_LARGEST = 2**63 - 1
"""Integers above it fit into no array."""

_TYPE_NAMES: Mapping[object, str] = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    type(None): "None",
}


@runtime_checkable
class _Configured(Protocol):
    """What registries hold: classes with a nested dataclass of their options."""

    Config: type


class _Method(_Configured, Protocol):
    """What the registry of aggregators holds."""

    def __call__(self, config: object, /) -> "Aggregator":
        """Build the method."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that determines a run. The type of a component's config is the `Config` of the class chosen."""

    env: str
    agent: str
    network: str
    critic_aggregator: str
    actor_aggregator: str
    trainer: "mtrl.schedule.Config"
    agent_config: Any
    network_config: Any
    env_config: "envs.Config"
    critic_aggregator_config: Any
    actor_aggregator_config: Any
    replay: "mtrl.replay.Config"
    resume: Path | None = field(default=None)
    """The run to continue; it is no part of the settings that are saved."""
    replaces_run: bool = field(default=False)
    """Whether the run directory holds a run that ended before it had saved anything, to be begun anew."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What was settled otherwise than a reader of the flags might expect; said at the start of the run."""

    def names(self) -> dict[str, str]:
        """Return the chosen names by key."""
        return {
            "env": self.env,
            "agent": self.agent,
            "network": self.network,
            "critic.aggregator": self.critic_aggregator,
            "actor.aggregator": self.actor_aggregator,
        }

    def configs(self) -> dict[str, Any]:
        """Return the configs by the prefix of their flags; the trainer's have none."""
        return {
            "": self.trainer,
            "env": self.env_config,
            "agent": self.agent_config,
            "network": self.network_config,
            "critic.aggregator": self.critic_aggregator_config,
            "actor.aggregator": self.actor_aggregator_config,
            "replay": self.replay,
        }

    def to_yaml(self) -> str:
        """Return all settings as a preset: read back, it gives the same settings, for a run directory of its own."""
        lines: dict[str, object] = dict(self.names())
        for section, config in self.configs().items():
            for name in _fields(type(config)):
                lines[_key(section, name)] = _plain(getattr(config, name))
        del lines["run_dir"]
        return yaml.safe_dump(lines, sort_keys=False, default_flow_style=None, allow_unicode=True)


def build(request: Request) -> Settings:
    """Convert the options of `request` and build all configs.

    Raises:
        UsageError: No environment was named, a class cannot be imported, an option does not exist, a value has the
            wrong type, a config refuses it, or the actor was given a method that needs positive losses.
    """
    if "env" not in request.names:
        raise UsageError(_explain_missing_env(request.options))
    _check_classes(request)
    request, remarks = _spare_actor(request)
    classes = _config_classes(request.names)
    for key, option in request.options.items():
        section, _, name = key.rpartition(".")
        if not option.carried and (section not in classes or name not in _fields(classes[section])):
            raise UsageError(_explain_unknown(key, option, request.names, classes))
    configs = {section: _build(section, classes[section], request.options) for section in classes}
    return Settings(
        env=request.names["env"],
        agent=request.names["agent"],
        network=request.names["network"],
        critic_aggregator=request.names["critic.aggregator"],
        actor_aggregator=request.names["actor.aggregator"],
        trainer=configs[""],
        agent_config=configs["agent"],
        network_config=configs["network"],
        env_config=configs["env"],
        critic_aggregator_config=configs["critic.aggregator"],
        actor_aggregator_config=configs["actor.aggregator"],
        replay=configs["replay"],
        resume=request.resume,
        remarks=remarks,
    )


def _check_classes(request: Request) -> None:
    """Import the classes that were chosen; those of the user's own may not be what they are named for."""
    for key, (kind, registry) in COMPONENTS.items():
        try:
            resolve(registry, kind, request.names[key])
        except ValueError as problem:
            raise UsageError(f"{request.naming[key]}: {problem}") from problem


def _spare_actor(request: Request) -> tuple[Request, tuple[str, ...]]:
    """Give the actor the mean where `--aggregator` names a method that needs positive losses; return a remark on it.

    An actor's loss is about minus the value of its actions: negative as soon as there is something to gain.
    """
    key = "actor.aggregator"
    name = request.names[key]
    if not _needs_positive_losses(request, key):
        return request, ()
    option = request.naming[key]
    if option.flag != "--aggregator" or request.names["critic.aggregator"] != name:
        raise UsageError(
            f"{option}: {name!r} needs positive losses, and an actor's are negative; it can serve the critic: "
            f"--critic.aggregator {name}"
        )
    others = {
        key: option
        for key, option in request.options.items()
        if not (key.startswith("actor.aggregator.") and option.flag.startswith("--aggregator."))
    }
    spared = dataclasses.replace(request, names=request.names | {key: "mean"}, options=others)
    return spared, (f"{name} needs positive losses, and an actor's are negative: critic {name}, actor mean",)


def _needs_positive_losses(request: Request, key: str) -> bool:
    """Ask the method as its options make it. Those it does not have are refused later, and not by this question."""
    kind, registry = COMPONENTS[key]
    method = cast("_Method", resolve(registry, kind, request.names[key]))
    config = _build(key, method.Config, request.options)
    try:
        return method(config).needs_positive_losses
    except ValueError as problem:
        raise UsageError(f"{flag_of(key)}: {problem}") from problem


def valid_flags(names: Mapping[str, str]) -> list[str]:
    """Return all flags there are for the chosen names."""
    keys = list(NAME_FLAGS)
    for section, config_class in _config_classes(names).items():
        keys += [_key(section, name) for name in _fields(config_class)]
    keys += [key.partition(".")[2] for key in keys if key.startswith("critic.aggregator.")]
    return [flag_of(key) for key in dict.fromkeys(keys)]


def _config_classes(names: Mapping[str, str]) -> dict[str, type]:
    """Return the config class of each part by the prefix of its flags."""
    from mtrl import replay, schedule

    components = {
        section: _config_class(kind, registry, names[section]) for section, (kind, registry) in COMPONENTS.items()
    }
    return {"": schedule.Config, "env": envs.Config, **components, "replay": replay.Config}


def _config_class(kind: str, registry: Mapping[str, str], name: str) -> type:
    return cast("_Configured", resolve(registry, kind, name)).Config


def _fields(config_class: type) -> tuple[str, ...]:
    return tuple(entry.name for entry in dataclasses.fields(config_class))


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _build(section: str, config_class: type, options: Mapping[str, Option]) -> Any:
    """Build a config from those of the options that are its fields; name the flag where it refuses a value."""
    hints = typing.get_type_hints(config_class)
    given = {name: options[_key(section, name)] for name in _fields(config_class) if _key(section, name) in options}
    values = {name: convert(option, hints[name]) for name, option in given.items()}
    try:
        return config_class(**values)
    except ValueError as error:
        message = str(error)
        found = re.match(r"\w+", message)
        name = found[0] if found else ""
        if name not in _fields(config_class):
            raise UsageError(f"{section or 'options'}: {message}") from error
        key = _key(section, name)
        flag = options.get(key, flag_of(key))
        raise UsageError(f"{flag}: {message.removeprefix(name).strip()}") from error


def convert(option: Option, hint: Any) -> object:
    """Convert the words of `option` to the type `hint`.

    Raises:
        UsageError: They are no such value; the message names the flag, the value and what was expected.
    """
    if hint is bool:
        spelling = {"true": "True", "false": "False"}
        words = tuple(spelling.get(word.lower(), word) for word in option.words)
        option = dataclasses.replace(option, words=words or ("True",))
    silence = io.StringIO()
    try:
        with contextlib.redirect_stderr(silence), contextlib.redirect_stdout(silence):
            value = tyro.cli(hint, args=option.words, console_outputs=False, config=(tyro.conf.FlagConversionOff,))
    except SystemExit as error:
        near = nearest(" ".join(option.words), choices(hint))
        raise UsageError(f"{option}: expected {_expected(hint)}, got {_found(option)}.{near}") from error
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float):
            continue
        if not all(word.isascii() for word in option.words):  # Python reads the digits of every script
            raise UsageError(f"{option}: expected {_expected(hint)} in the digits 0 to 9, got {_found(option)}")
        if isinstance(number, int) and abs(number) > _LARGEST:
            raise UsageError(f"{option}: expected {_expected(hint)} of at most {_LARGEST}, got {_found(option)}")
    return value


def _found(option: Option) -> str:
    return repr(" ".join(option.words)) if option.words else "nothing"


def _expected(hint: object) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_expected, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"{_expected(arguments[0]).split()[-1]}s separated by spaces"
    if origin is tuple:
        return f"{len(arguments)} values"
    return _TYPE_NAMES.get(hint, str(hint))


def _explain_missing_env(options: Mapping[str, Option]) -> str:
    """Say that no environment was named, unless the flag of a name is misspelt."""
    for key, option in options.items():
        near = nearest(option.flag, map(flag_of, NAME_FLAGS))
        if near and key.rpartition(".")[0] not in COMPONENTS:
            return f"{option}: no such flag.{near}"
    return f"--env is required. Choices: {', '.join(envs.names())}."


def _explain_unknown(key: str, option: Option, names: Mapping[str, str], classes: Mapping[str, type]) -> str:
    """Say why no option `key` exists, and what comes nearest."""
    section, _, name = key.rpartition(".")
    if section in COMPONENTS:
        kind, registry = COMPONENTS[section]
        others = [other for other in _METHODS if other != section and section in _METHODS]
        is_shorthand = option.flag.startswith("--aggregator.")
        if is_shorthand and name in _fields(classes[others[0]]):
            part = section.partition(".")[0]
            return (
                f"{option}: the {part}'s {names[section]!r} has no such option; write {flag_of(f'{others[0]}.{name}')}"
            )
        owners = [other for other in registry if name in _fields(_config_class(kind, registry, other))]
        if owners:
            return f"{option}: {kind} {names[section]!r} has no such option; it belongs to {', '.join(owners)}"
    near = nearest(option.flag, valid_flags(names))
    return f"{option}: no such flag.{near}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the sentence that names the choice nearest to `word`, with a space before it; empty where none is near."""
    word = word.replace("_", "-")
    choices = tuple(choices)
    ending = "." + re.split(r"[.]|--", word)[-1]  # --gamma is short of its part: --agent.gamma
    found = [choice for choice in choices if choice.endswith(ending)]
    found += difflib.get_close_matches(word, choices, n=1, cutoff=0.7)
    return f" Did you mean {found[0]}?" if found else ""
