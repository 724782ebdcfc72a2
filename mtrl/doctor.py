"""Say whether this machine can train, how fast, and what to do about what is wrong: `python -m mtrl.doctor`.

Writes nothing but the cache of what is compiled once.

Exit codes: 0 training can run; 2 it cannot, or usage.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtrl import arguments, checks
from mtrl.checks import Check

EXIT_CANNOT = 2

_NAME_WIDTH, _STATUS_WIDTH = 18, 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say whether this machine can train, how fast, and what to do about what is wrong."""

    json: bool = False
    """Print JSON instead of lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training: speeds depend on it
    options = arguments.read(Options, argv, "python -m mtrl.doctor")
    found: list[Check] = []
    for group in (checks.packages, *_ONE_EACH):
        for check in _safely(group):
            found.append(check)
            if not options.json:
                _print(check)
    can_train = all(check.status != "fail" for check in found)
    speeds = recommendation = None
    if can_train:
        speeds, recommendation, problem = _measure()
        if problem is not None:
            found.append(problem)
            can_train = False
    if options.json:
        report = {
            "can_train": can_train,
            "checks": [asdict(check) for check in found],
            "speeds": speeds,
            "recommendation": recommendation,
        }
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        _print_end(found, speeds, recommendation, can_train=can_train)
    return 0 if can_train else EXIT_CANNOT


def _disk() -> Check:
    return checks.disk(Path.cwd())


_ONE_EACH: tuple[Callable[[], Check], ...] = (
    checks.device,
    checks.cores,
    checks.memory,
    checks.shared_memory,
    _disk,
    checks.cache,
    checks.rendering,
)


def _safely(look: Callable[[], Check | Iterable[Check]]) -> list[Check]:
    """Look, and turn a package that is missing or broken into an answer."""
    try:
        found = look()
        return [found] if isinstance(found, Check) else list(found)
    except ImportError as problem:
        return [
            Check(
                name=look.__name__.strip("_"),
                status="fail",
                found=f"cannot look: {problem}",
                advice="pip install -e . in the folder of this package",
            )
        ]


def _measure() -> tuple[dict[str, Any] | None, dict[str, Any] | None, Check | None]:
    """Measure speeds; return them and what follows from them, or what kept the environments from running."""
    from mtrl import speeds
    from mtrl.envs.workers import WorkerError

    try:
        found, spec = speeds.measure()
    except WorkerError as problem:
        why = str(problem).partition("\n")[0]
        return None, None, Check(name="environments", status="fail", found=why, advice="train --env toy needs none")
    advised = speeds.recommend(found, spec)
    return found._asdict(), advised._asdict() | {"command": advised.command}, None


def _print(check: Check) -> None:
    advice = f"; {check.advice}" if check.advice else ""
    sys.stdout.write(f"{check.name:<{_NAME_WIDTH}}{check.status:<{_STATUS_WIDTH}}{check.found}{advice}\n")
    sys.stdout.flush()


def _print_end(
    found: Sequence[Check], speeds: dict[str, Any] | None, advised: dict[str, Any] | None, *, can_train: bool
) -> None:
    from mtrl.loggers import duration

    lines = []
    if speeds is not None and advised is not None:
        rates = ", ".join(f"{rate:,.0f} with {_count(n, 'worker')}" for n, rate in speeds["steps"].items())
        lines.append(f"{'MT10 steps/s':<{_NAME_WIDTH + _STATUS_WIDTH}}{rates}; first observation after "
                     f"{speeds['start_seconds']:.1f} s")  # fmt: skip
        for method, times in speeds["updates"].items():
            each = ", ".join(f"{1000 * seconds:.1f} ms with {_count(n, 'thread')}" for n, seconds in times.items())
            lines.append(f"{'update, ' + method:<{_NAME_WIDTH + _STATUS_WIDTH}}{each}")
        lines += [f"recommended: {advised['command']}", f"which will take at most about {duration(advised['seconds'])}"]
    worst = [check.name for check in found if check.status == "fail"]
    lines.append("training can run here" if can_train else f"training cannot run here: {', '.join(worst)}")
    sys.stdout.write("\n".join(lines) + "\n")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


if __name__ == "__main__":
    sys.exit(main())
