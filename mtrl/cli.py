"""The command line: `parse` turns it into the settings of a run, or ends the program with one readable message.

    settings = parse(sys.argv[1:])

Names come first and decide which other flags exist: those of the chosen agent, network and aggregators. A preset is a
file of flags; a default gives way to the environment's preset, that to `--preset`, that to flags.
"""

import dataclasses
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from mtrl import aggregators, envs, flag_help, flags
from mtrl.flags import UsageError, printable
from mtrl.settings import Settings, build

__all__ = ["OUTPUT_FILE", "Settings", "UsageError", "check_device", "error", "load", "parse", "read"]

OUTPUT_FILE = "output.log"
"""What a run started by others printed, in its folder."""

_EXIT_USAGE = 2

_RUN_NAME = re.compile(r"(?!-)(?!\.+$)[\w.-]+")
"""Names that survive shells, archives and other people's file systems, and lead to no other folder."""


def parse(argv: Sequence[str]) -> Settings:
    """Read the command line of a training run.

    Args:
        argv: The words after the program's name.

    Raises:
        SystemExit: With code 2 after a message on standard error, or with 0 after the help.
    """
    try:
        wants_help = any(word in ("-h", "--help") for word in argv)
        if wants_help and len(argv) == 1:
            sys.stdout.write(flag_help.short())
            raise SystemExit(0)
        if wants_help:
            request = flags.read([word for word in argv if word not in ("-h", "--help")])
            names = {"env": "", **request.names}
            sys.stdout.write(flag_help.full(build(dataclasses.replace(request, names=names))))
            raise SystemExit(0)
        return read(argv)
    except UsageError as problem:
        error(str(problem))


def read(argv: Sequence[str]) -> Settings:
    """Return the settings that a command line without `--help` gives, checked as far as that costs little.

    Raises:
        UsageError: It gives none, or they cannot be run here.
    """
    request = flags.read(argv)
    settings = build(request)
    if request.resumes_if_begun and settings.trainer.run_dir and (settings.trainer.run_dir / "config.yaml").exists():
        return _checked(_continued(settings, settings.trainer.run_dir))
    return _checked(settings)


def load(run: Path, trusted: Collection[str] = ()) -> Settings:
    """Read the settings that the run in the folder `run` was started with.

    Args:
        run: The folder.
        trusted: Modules that the run may name; others only where the environment variable MTRL_MODULES allows them.

    Raises:
        UsageError: There is no such run, or its settings do not fit this version, or name a module they may not name.
    """
    return build(flags.read_run(run, trusted))


def _continued(settings: Settings, run: Path) -> Settings:
    """Return the settings that continue the run in its own folder; where it has nothing saved, those that begin anew.

    Raises:
        UsageError: The settings are not those the run was started with.
    """
    from mtrl import checkpoint

    trusted = flags.modules(settings.names())
    found, asked = (yaml.safe_load(some.to_yaml()) for some in (load(run, trusted), settings))
    for key, value in found.items():
        if key not in flags.RESUMABLE and asked.get(key) != value:
            raise UsageError(
                f"--resume auto: {flags.flag_of(key)} is {asked.get(key)}, and the run in {run} was started with "
                f"{value}; name another --run-dir, or give the flags of the run"
            )
    has_checkpoint = checkpoint.latest(run / "checkpoints") is not None
    return dataclasses.replace(settings, resume=run if has_checkpoint else None, replaces_run=not has_checkpoint)


def error(message: str) -> NoReturn:
    """Print a usage error, as one line without what would steer a terminal, and end the program with code 2."""
    sys.stderr.write(f"error: {printable(' '.join(message.splitlines()))}\n")
    raise SystemExit(_EXIT_USAGE)


def _checked(settings: Settings) -> Settings:
    """Refuse settings that are valid one by one and impossible together or here."""
    check_device("--device", settings.trainer.device)
    check_device("--replay.device", settings.replay.device)
    settings = _with_precision(settings)
    _check_eval_goals(settings)
    for part in ("critic", "actor"):
        _check_aggregator(settings, part)
    if settings.resume is None and settings.trainer.run_dir is not None and not settings.replaces_run:
        _check_run_dir(settings.trainer.run_dir)
    return settings


def check_device(flag: str, device: str) -> None:
    """Raise unless this machine has the device.

    Raises:
        UsageError: It has no CUDA, and `device` is cuda.
    """
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise UsageError(f"{flag}: expected auto or cpu, got 'cuda': this torch sees no CUDA device")


def _with_precision(settings: Settings) -> Settings:
    """Refuse a precision that the device has not; a run begun on another device is continued, with a remark."""
    precision, kind = settings.trainer.matmul_precision, settings.trainer.device
    if precision == "float32":
        return settings
    import torch

    from mtrl.precision import has_precision

    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind)
    if has_precision(device, precision):
        return settings
    where = "this GPU" if kind == "cuda" else "this processor"
    others = [other for other in ("tf32", "bfloat16") if has_precision(device, other)]
    if settings.resume is None:
        expected = " or ".join(["float32", *others])
        raise UsageError(f"--matmul-precision: expected {expected}, which {where} has, got {precision!r}")
    remark = f"{where} has no products in {precision}, with which the run began: it goes on in float32"
    return dataclasses.replace(settings, remarks=(*settings.remarks, remark))


def _check_eval_goals(settings: Settings) -> None:
    try:
        count, most = settings.trainer.eval_goals, envs.num_goals(settings.env, settings.env_config)
    except ValueError as problem:
        raise UsageError(f"--env: {problem}") from problem
    if count > most:
        raise UsageError(f"--eval-goals: expected at most {most}, the goals of a task of {settings.env}, got {count}")


def _check_aggregator(settings: Settings, part: str) -> None:
    """Build the aggregator and fit it to the number of tasks, as training will."""
    import torch

    num_tasks = len(envs.task_names(settings.env))
    config = settings.configs()[f"{part}.aggregator"]
    try:
        method = aggregators.make(settings.names()[f"{part}.aggregator"], **dataclasses.asdict(config))
        method.setup(num_tasks, [torch.Size([1])], torch.device("cpu"))
    except ValueError as problem:
        raise UsageError(f"--{part}.aggregator on {settings.env}: {problem}") from problem


def _check_run_dir(run_dir: Path) -> None:
    try:
        made = [run_dir.name, *(folder.name for folder in run_dir.parents if not folder.exists())]
        for name in made:
            if not _RUN_NAME.fullmatch(name):
                raise UsageError(f"--run-dir: expected a name of letters, digits and ._- only, got {name!r}")
        if run_dir.exists() and not run_dir.is_dir():
            raise UsageError(f"--run-dir: {run_dir} is a file")
        found = [path for path in run_dir.iterdir() if not _may_stand_by(path)] if run_dir.exists() else []
    except OSError as problem:
        raise UsageError(f"--run-dir: cannot use {run_dir}: {problem.strerror}") from problem
    if found:
        is_run = (run_dir / "config.yaml").exists()
        advice = (
            f"continue it with --resume {run_dir}, or" if is_run else f"it holds {found[0].name} and no config.yaml;"
        )
        raise UsageError(f"--run-dir: {run_dir} is not empty; {advice} name another")


def _may_stand_by(path: Path) -> bool:
    """Whether a folder in which a run begins may hold this: what a start leaves that went no further, or an output."""
    return path.name == "lock" or path.name.startswith(".partial-") or path.suffix in (".log", ".out", ".err")
