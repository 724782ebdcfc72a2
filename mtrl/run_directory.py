"""The folder of one run: what it was told, where it ran, what it found.

config.yaml        the resolved settings; `--preset RUN/config.yaml` repeats them
environment.json   versions, commit, hardware and command line, one entry per start
metrics.jsonl      one record per line: training and evaluations
events.out.*       the same for TensorBoard
checkpoints/STEP/  everything needed to continue
"""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mtrl import checkpoint

if TYPE_CHECKING:
    from mtrl.cli import Settings

_PACKAGES = ("torch", "numpy", "gymnasium", "metaworld", "mujoco", "tensorboard")


def prepare(settings: "Settings") -> Path:
    """Create the run's folder, or find the one to resume, and record this start in it."""
    run_dir = settings.resume or settings.trainer.run_dir or _default(settings)
    run_dir.mkdir(parents=True, exist_ok=True)
    if settings.resume is None:
        (run_dir / "config.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    _record_start(run_dir / "environment.json")
    return run_dir


def _record_start(path: Path) -> None:
    """Append a description of this start to the list in the file."""
    starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*starts, describe_environment()], indent=1) + "\n", encoding="utf-8")


def checkpoint_to_resume(settings: "Settings") -> Path | None:
    """Return the newest checkpoint of the run to resume, None if this is a new run.

    Raises:
        ValueError: The run has no complete checkpoint.
    """
    if settings.resume is None:
        return None
    newest = checkpoint.latest(settings.resume / "checkpoints")
    if newest is None:
        raise ValueError(f"--resume: {settings.resume} has no complete checkpoint to continue from")
    return newest


def describe_environment() -> dict[str, object]:
    """Return versions, commit, hardware and the command line."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.executable).name, *sys.argv],
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus,
    }


def _default(settings: "Settings") -> Path:
    """Name a new run by what it is; a number is added where two start within a second."""
    methods = dict.fromkeys((settings.critic_aggregator, settings.actor_aggregator))
    env = re.sub(r"[^\w.-]+", "-", settings.env)[:60]
    date = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{env}-{'-'.join(methods)}-{settings.trainer.seed}-{date}"
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the git commit of this code, marked where files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _cpu_name() -> str:
    """Return the processor's name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
