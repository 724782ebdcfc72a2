"""Train several methods with several seeds: `python -m mtrl.sweep --env mt10 --aggregators mean,aligned --seeds 0:5`.

Every run is a plain `python -m mtrl.train`; the same command again skips what is finished and continues the rest.

Exit codes: 0 all finished, or saved after --max-hours; 1 a run failed, 2 usage; 129, 130, 138, 143 stopped
by SIGHUP, SIGINT, SIGUSR1, SIGTERM, with the runs saved.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtrl import arguments
from mtrl.cli import UsageError, error
from mtrl.launchers import Launcher
from mtrl.machine import usable_cores
from mtrl.sweep_plan import parse_names, parse_seeds, plan

EXIT_FAILED = 1

DEFAULT_HOURS = 24.0

CPUS_PER_RUN = 2
"""By default: one core for the learner, one for the environments."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train several methods with several seeds. Every other flag is one of mtrl.train, and passed on to each run."""

    aggregators: str
    """Names separated by commas: mean,aligned."""
    seeds: str
    """0:5 for 0 to 4, or a list: 0,1,7."""
    sweep_dir: Path | None = None
    """Folder of the runs, AGGREGATOR-SEED each; by default sweeps/ENV."""
    jobs: int | None = None
    """At most so many runs at a time; by default as many as the cores allow, on a cluster all."""
    cpus_per_run: int | None = None
    """Cores of a run: its --threads and --workers where these are not given. 2 by default, or the cores of this
    machine divided by --jobs."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """Where runs are started: as processes of this machine, on a Ray cluster, by SLURM."""
    gpus_per_run: float | None = None
    """GPUs of a run on Ray, where 0.25 lets four share one, and SLURM; by default none, and the run sees none."""
    ray_address: str | None = None
    """Of a Ray cluster, as HOST:PORT, whose machines all see this folder; by default one is started on this machine,
    reachable from it alone."""
    slurm_partition: str | None = None
    """Where SLURM starts the runs; by default where it does."""
    slurm_hours: float | None = None
    """Time limit of a job, 24 by default; runs that reach it are saved and put back into the queue."""
    slurm_cluster: Literal["slurm", "local"] = "slurm"
    """local: submitit's processes on this machine, to try it without SLURM."""
    dry_run: bool = False
    """Print the commands of the runs and start nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    flags: list[str] = []
    options = arguments.read(Options, argv, "python -m mtrl.sweep", others=flags)
    try:
        return _main(options, flags)
    except UsageError as problem:
        error(str(problem))


def _main(options: Options, flags: Sequence[str]) -> int:
    from mtrl.sweep_loop import SweepLoop
    from mtrl.sweep_table import table

    jobs, cpus = _share_cores(options)
    runs = plan(parse_names(options.aggregators), parse_seeds(options.seeds), flags, options.sweep_dir, cpus)
    if options.dry_run:
        sys.stdout.writelines(f"{run.line}\n" for run in runs)
        return 0
    launcher = make_launcher(options, runs[0].run_dir.parent, cpus)
    loop = SweepLoop(runs, launcher, jobs)
    try:
        loop.run()
    finally:
        launcher.close()
    sys.stdout.write("\n".join(["", *table(runs), ""]))
    if loop.received:
        return 128 + loop.received
    return EXIT_FAILED if loop.failed else 0


def _share_cores(options: Options) -> tuple[int, int]:
    """Return how many runs there may be at a time, and the cores of each."""
    for name in ("jobs", "cpus_per_run"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    cores = usable_cores()
    cpus = options.cpus_per_run or (max(1, cores // options.jobs) if options.jobs else min(cores, CPUS_PER_RUN))
    is_elsewhere = options.ray_address is not None or options.launcher == "slurm"
    return options.jobs or (sys.maxsize if is_elsewhere else max(1, cores // cpus)), cpus


def make_launcher(options: Options, folder: Path, cpus: int) -> Launcher:
    """Return the chosen place for the runs.

    Raises:
        UsageError: A package is missing, a cluster cannot be used, or a flag belongs to another launcher.
    """
    for name in ("gpus_per_run", "ray_address", "slurm_partition", "slurm_hours"):
        if getattr(options, name) is not None and not _belongs(name, options.launcher):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} has no meaning for --launcher {options.launcher}")
    gpus = options.gpus_per_run or 0.0
    if not 0 <= gpus < float("inf") or (gpus > 1 and gpus % 1):
        raise UsageError(f"--gpus-per-run: expected a part of one or a whole number, got {gpus}")
    try:
        if options.launcher == "ray":
            from mtrl.launchers.ray_cluster import RayCluster

            return RayCluster(options.ray_address, cpus=cpus, gpus=gpus)
        if options.launcher == "slurm":
            from mtrl.launchers.slurm import Slurm

            hours = DEFAULT_HOURS if options.slurm_hours is None else options.slurm_hours
            if not 0 < hours < float("inf"):
                raise UsageError(f"--slurm-hours: expected a positive number, got {hours}")
            return Slurm(
                folder,
                cpus=cpus,
                gpus=gpus,
                hours=hours,
                partition=options.slurm_partition,
                cluster=options.slurm_cluster,
            )
    except ModuleNotFoundError as problem:
        raise UsageError(
            f'--launcher {options.launcher} needs {problem.name}: pip install "mtrl-aligned[{options.launcher}]"'
        ) from problem
    except (ValueError, RuntimeError) as problem:
        raise UsageError(f"--launcher {options.launcher}: {problem}") from problem
    from mtrl.launchers.local import Local

    return Local()


def _belongs(option: str, launcher: str) -> bool:
    return option.startswith(launcher) or (option == "gpus_per_run" and launcher != "local")


if __name__ == "__main__":
    sys.exit(main())
