"""What `--help` prints: the names without importing torch, or every flag of the parts that were chosen."""

import shutil
import textwrap
from typing import Any

from mtrl import agents, aggregators, configs, envs, flags, networks, option_docs, settings

__all__ = ["full", "short"]

_PROGRAM = "python -m mtrl.train"

_USAGE = f"usage: {_PROGRAM} --env NAME [--aggregator NAME] [other flags]"

_ENV_TASKS = "for some tasks of one: mt10:reach-v3,push-v3; for any of Gymnasium's: gymnasium:ID,ID,MODULE:ID"

_OWN = "or a class of your own, MODULE:CLASS"

_COLUMN = 32
"""Where the explanations begin: right of most flags."""


def short() -> str:
    """Return the flags that name something, and where to read about the others."""
    return (
        f"{_USAGE}\n\n"
        "Train one policy on many tasks; --aggregator names the method that combines their gradients.\n\n"
        f"{_names()}\n"
        "Every other flag and its value, for the names given:\n"
        f"  {_PROGRAM} --env mt10 --aggregator aligned --help\n"
    )


def full(chosen: "settings.Settings") -> str:
    """Return every flag with the value it has in `chosen`."""
    sections = chosen.configs()
    critic, actor = sections["critic.aggregator"], sections["actor.aggregator"]
    if critic == actor:
        sections = {"aggregator" if key == "critic.aggregator" else key: value for key, value in sections.items()}
        del sections["actor.aggregator"]
    parts = [_section(section, config) for section, config in sections.items()]
    remarks = [f"{remark}\n" for remark in chosen.remarks]
    return "\n".join([_USAGE, "", _names(), *remarks, *parts])


def _names() -> str:
    default = flags.DEFAULTS
    resumable = ", ".join(flags.flag_of(key) for key in flags.RESUMABLE)
    rows = (
        ("--env NAME", f"{', '.join(envs.names())}; {_ENV_TASKS}"),
        ("--aggregator NAME", f"{', '.join(aggregators.REGISTRY)} (default: {default['critic.aggregator']}); {_OWN}"),
        ("--critic.aggregator NAME", "the method of the critic alone"),
        ("--actor.aggregator NAME", "the method of the actor alone"),
        ("--network NAME", f"{', '.join(networks.REGISTRY)} (default: {default['network']}); {_OWN}"),
        ("--agent NAME", f"{', '.join(agents.REGISTRY)} (default: {default['agent']}); {_OWN}"),
        ("--preset NAME|FILE", f"{', '.join(configs.names())} (default: that of the environment), or a YAML file"),
        (
            "--resume RUN",
            f"continue the run in this folder; takes only {resumable}. --resume auto: in --run-dir, begun or not",
        ),
    )
    return "Names\n" + "".join(_row(flag, text) for flag, text in rows)


def _section(section: str, config: Any) -> str:
    rows = [
        _row(f"{flags.flag_of(f'{section}.{option.name}'.lstrip('.'))} {option.value}", option.text)
        for option in option_docs.describe(config)
    ]
    heading = f"{section.capitalize() or 'Run'}: {option_docs.title(config) or section}\n"
    return heading + ("".join(rows) or "  (no options)\n")


def _row(flag: str, text: str) -> str:
    """Return a flag and its explanation, which begins on the next line where the flag is long."""
    width = min(max(shutil.get_terminal_size(fallback=(100, 24)).columns, 80), 100)
    lines = textwrap.wrap(text, width - _COLUMN, break_on_hyphens=False, break_long_words=False)
    head = f"  {flag}"
    if len(head) < _COLUMN and lines:
        lines[0] = head.ljust(_COLUMN) + lines[0]
    else:
        lines.insert(0, head)
    return "".join(f"{line if line.startswith('  --') else ' ' * _COLUMN + line}\n" for line in lines)
