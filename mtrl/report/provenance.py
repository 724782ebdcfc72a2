"""Where numbers come from: what stands under every figure."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from mtrl import envs
from mtrl.report.runs import Run

_UNKNOWN = "not recorded"

_META_WORLD = ("mt1", "mt10", "mt25", "mt50")


def lines(runs: Sequence[Run]) -> dict[str, str]:
    """Return by name: environment, reward, protocol, command, commit and hardware of the runs together."""
    starts = [start for run in runs for start in run.starts]
    more = f" (and {len(runs) - 1} more: see the list of runs)" if len(runs) > 1 else ""
    return {
        "environment": _environment(runs[0].config["env"], starts),
        "reward": _reward(runs[0].config["env"]),
        "protocol": _protocol(runs),
        "command": command(runs[0]) + more,
        "commit": commits(runs),
        "hardware": hardware(runs),
    }


def command(run: Run) -> str:
    """Return the command line of the run's first start, as it is typed."""
    if not run.starts:
        return _UNKNOWN
    words = [str(word) for word in run.starts[0].get("command", ())]
    if len(words) > 1 and words[1].replace("\\", "/").endswith("mtrl/train.py"):
        words[1:2] = ["-m", "mtrl.train"]
    resumed = len(run.starts) - 1
    again = f" (resumed {resumed} times)" if resumed > 1 else " (resumed once)" if resumed else ""
    return shlex.join(words) + again


def commits(runs: Sequence[Run]) -> str:
    """Return the commits of all starts of the runs."""
    return _join(start.get("commit") for run in runs for start in run.starts)


def hardware(runs: Sequence[Run]) -> str:
    """Return the processors and GPUs of all starts of the runs."""
    return _join(
        f"{start.get('cpu')}, {start.get('cores')} cores, {' + '.join(start.get('gpus') or ()) or 'no GPU'}"
        for run in runs
        for start in run.starts
    )


def _environment(env: str, starts: Sequence[dict[str, Any]]) -> str:
    def versions(package: str) -> str:
        return _join(start.get("versions", {}).get(package) for start in starts)

    suite = envs.parse(env)[0]
    if suite in _META_WORLD:
        return f"{env}, Meta-World {versions('metaworld')}, MuJoCo {versions('mujoco')}"
    if suite == "gymnasium":
        return f"{env}, Gymnasium {versions('gymnasium')}"
    return f"{env}, as of the commit"


def _reward(env: str) -> str:
    suite = envs.parse(env)[0]
    return "v2" if suite in _META_WORLD else "of its environments" if suite == "gymnasium" else "as of the commit"


def _protocol(runs: Sequence[Run]) -> str:
    goals = _join(run.config.get("eval_goals") for run in runs)
    return (
        f"goals of goal seed {runs[0].config.get('goal_seed')}; evaluations during training: deterministic policy, "
        f"goals per task: {goals}; solved if any step is; steps are environment steps, summed over "
        f"{len(runs[0].tasks)} tasks"
    )


def _join(values: Iterable[object]) -> str:
    """Return the different values, each once."""
    return " and ".join(dict.fromkeys(str(value) for value in values if value is not None)) or _UNKNOWN
