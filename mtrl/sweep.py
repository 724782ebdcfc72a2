"""Train several methods with several seeds: `python -m mtrl.sweep --env mt10 --aggregators mean,aligned --seeds 0:5`.

Every run is a plain `python -m mtrl.train`; the same command again skips what is finished and continues the rest.

Exit codes: 0 all finished, or saved after --max-hours; 1 a run failed, 2 usage; 130, 138, 143 stopped by SIGINT,
SIGUSR1, SIGTERM, with the runs saved.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mtrl.cli import UsageError, error
from mtrl.launchers import Launcher
from mtrl.sweep_plan import Run, parse_names, parse_seeds, plan

EXIT_FAILED = 1

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
    """At most so many runs at a time; by default as many as the cores allow."""
    cpus_per_run: int | None = None
    """Cores of a run: its --threads and --workers where these are not given. 2 by default, or the cores of this
    machine divided by --jobs."""
    launcher: Literal["local", "ray", "slurm"] = "local"
    """Where runs are started: as processes of this machine, on a Ray cluster, by SLURM."""
    dry_run: bool = False
    """Print the commands of the runs and start nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options, flags = tyro.cli(
        Options,
        args=argv,
        prog="python -m mtrl.sweep",
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
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
    launcher = make_launcher(options, runs)
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
    from mtrl.envs.workers import usable_cores

    for name in ("jobs", "cpus_per_run"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    cores = usable_cores()
    cpus = options.cpus_per_run or (max(1, cores // options.jobs) if options.jobs else min(cores, CPUS_PER_RUN))
    return options.jobs or max(1, cores // cpus), cpus


def make_launcher(options: Options, runs: Sequence[Run]) -> Launcher:
    """Return the chosen place for the runs."""
    from mtrl.launchers.local import Local

    del options, runs
    return Local()


if __name__ == "__main__":
    sys.exit(main())
