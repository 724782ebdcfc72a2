"""The folder of one run: what it was told, where it ran, what it found.

config.yaml        the resolved settings; `--preset RUN/config.yaml` repeats them
environment.json   versions, commit, hardware and command line, one entry per start
metrics.jsonl      one record per line: training and evaluations
events.out.*       the same for TensorBoard
checkpoints/STEP/  everything needed to continue
nonfinite/         updates that met a number that is not finite, to be repeated
evaluations/       what `mtrl.evaluate` found, by step
videos/            what `mtrl.record` saw, by step
lock               held by the process that runs here, and its id
"""

import contextlib
import dataclasses
import datetime as dt
import errno
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml

from mtrl import checkpoint
from mtrl.machine import allowed_cores

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from mtrl.cli import Settings

_PACKAGES = ("torch", "numpy", "gymnasium", "metaworld", "mujoco", "tensorboard")

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How a file system says that it knows no locks; those of clusters may be mounted without."""

_locked: set[Path] = set()
"""Directories this process holds, until it ends: a lock belongs to the process, as its id does."""

_made: dict[Path, list[Path]] = {}
"""Directory of a run -> the folders made for it, itself first: what is to be removed if the run is refused."""


def claim(settings: "Settings") -> Path:
    """Create the run's folder, or find the one to resume, and keep other processes out until this one ends.

    Raises:
        ValueError: Another process runs there, or the folder cannot be written.
    """
    flag = "--resume" if settings.resume else "--run-dir"
    run_dir = settings.resume or settings.trainer.run_dir
    try:
        if run_dir is None:
            made = [] if Path("runs").exists() else [Path("runs")]
            run_dir = _create_default(settings)
            made.insert(0, run_dir)
        else:
            made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
            run_dir.mkdir(parents=True, exist_ok=True)
        _made[run_dir] = made
        _lock(run_dir)
    except OSError as problem:
        raise ValueError(f"{flag}: cannot write {problem.filename or run_dir}: {problem.strerror}") from problem
    return run_dir


def record(settings: "Settings", run_dir: Path) -> None:
    """Write down in the claimed folder what this start was told and where it runs."""
    config = run_dir / "config.yaml"
    if settings.resume is None:
        write_whole(config, settings.to_yaml())
    else:
        _update(config, {key: getattr(settings.trainer, key) for key in ("total_steps", "on_nonfinite")})
    _record_start(run_dir / "environment.json")


def drop_if_empty(run_dir: Path) -> None:
    """Remove what claiming made for a run that was refused while it was set up, if nothing was written there."""
    if [path.name for path in run_dir.iterdir()] != ["lock"]:
        return
    (run_dir / "lock").unlink()
    _locked.discard(run_dir.resolve())
    for folder in _made.pop(run_dir, []):
        with contextlib.suppress(OSError):  # another run has begun in it
            folder.rmdir()


def require_checkpoint(settings: "Settings") -> None:
    """Raise where a run to resume has no checkpoint. Looks only: another process may hold the run.

    Raises:
        ValueError: The run has no complete checkpoint.
    """
    if settings.resume is not None and checkpoint.latest(settings.resume / "checkpoints") is None:
        raise ValueError(f"--resume: {settings.resume} has no complete checkpoint to continue from")


def looked_at_again(settings: "Settings", run_dir: Path) -> "Settings":
    """Return the settings for the claimed folder.

    A run that was to begin anew is continued where the process that held the folder before has saved it meanwhile.
    """
    if settings.replaces_run and checkpoint.latest(run_dir / "checkpoints") is not None:
        return dataclasses.replace(settings, resume=run_dir, replaces_run=False)
    return settings


def checkpoint_to_resume(settings: "Settings") -> Path | None:
    """Return the newest whole checkpoint of the run to resume, None if this is a new run.

    Raises:
        ValueError: The run has no complete checkpoint, or all are damaged.
    """
    if settings.resume is None:
        return None
    try:
        newest = checkpoint.latest_whole(settings.resume / "checkpoints")
    except ValueError as problem:
        raise ValueError(f"--resume: {problem}") from problem
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
        "cpu": cpu_name(),
        "cores": allowed_cores(),
        "gpus": gpus,
    }


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def write_whole(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; it becomes `path` at the end, or is removed where something was raised."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _create_default(settings: "Settings") -> Path:
    """Create a folder named by what the run is; a number is added where two start within a second."""
    methods = dict.fromkeys((settings.critic_aggregator, settings.actor_aggregator))
    env, method = (re.sub(r"[^\w.-]+", "-", name)[:60] for name in (settings.env, "-".join(methods)))
    date = dt.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{env}-{method}-{settings.trainer.seed}-{date}"
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    folder, number = runs / name, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            folder = runs / f"{name}-{number}"
        else:
            return folder


def _lock(run_dir: Path) -> None:
    """Take the folder's lock, which the system frees when this process ends, however it ends."""
    if sys.platform == "win32" or run_dir.resolve() in _locked:
        return
    descriptor = os.open(run_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 1000).decode().strip() or "another process"
        os.close(descriptor)
        raise ValueError(f"{run_dir} is in use by {owner}: one run directory belongs to one running process") from None
    except OSError as problem:
        os.close(descriptor)
        if problem.errno not in _NO_LOCKS:
            raise
        warnings.warn(f"{run_dir}: no locks on this file system; let only one process run there", stacklevel=3)
        return
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    _locked.add(run_dir.resolve())


def _update(config: Path, values: dict[str, object]) -> None:
    """Let the next start continue as this one does; other lines stay as they are."""
    updated = text = config.read_text(encoding="utf-8")
    for key, value in values.items():
        line = yaml.safe_dump({key: value}).strip()
        updated = re.sub(rf"^{key}:.*$", line, updated, flags=re.MULTILINE)
    if updated != text:
        write_whole(config, updated)


def _record_start(path: Path) -> None:
    """Append a description of this start to the list in the file."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError:
        warnings.warn(f"{path} is torn: the record of earlier starts is lost", stacklevel=3)
        starts = []
    write_whole(path, json.dumps([*starts, describe_environment()], indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the git commit of this code, marked where files differ from it; None outside a checkout.

    Installed into a folder of another project's checkout, this code is none of its files.
    """
    folder = Path(__file__).parent
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True, check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
