"""What does the native engine gain in a whole training run, and does it learn the same?

Trains with Meta-World's own classes and with the native engine, one after the other, by the same command and seed, and
prints steps per second and where the time went. All records must be equal but for times and speeds.

    python -m scripts.compare_training --flags "--preset mt10_cpu --aggregator aligned --total-steps 60000"

exits with 1 where a record differs.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.training_runs import Run

ENGINES = ("stock", "native")
FLAGS = "--preset mt10_cpu --aggregator aligned --seed 0 --total-steps 60000 --eval-every 20000 --log-every 5000"
OF_TIME = ("time", "speed", "time_share")
"""Records and groups of records that tell of speed alone."""


def main(argv: list[str] | None = None) -> int:
    """Train twice and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", default=FLAGS, help="of mtrl.train (default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        runs = {engine: train(Path(folder) / engine, engine, shlex.split(args.flags)) for engine in ENGINES}
        about = runs["native"].start()
        print(
            f"`mtrl.train {args.flags}`; {about['cpu']}, {about['cores']} cores, {about['time']}, {about['commit']}\n"
        )
        print("| engine | s | steps/s | s in environments | s in evaluations | s in all else |")
        print("|---|---|---|---|---|---|")
        for engine, run in runs.items():
            print(row(engine, run.records("train")))
        stock, native = (
            [learned(one) for kind in ("train", "evaluation") for one in run.records(kind)] for run in runs.values()
        )
        print(f"\n{len(native)} records of each run: {'equal' if native == stock else 'DIFFERENT'}")
        return int(native != stock)


def train(folder: Path, engine: str, flags: list[str]) -> Run:
    """Train once."""
    command = [*flags, "--env.engine", engine, "--run-dir", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "mtrl.train", *command], check=True, stdout=2
    )  # the table alone goes to standard output
    return Run(folder, tuple(command))


def row(engine: str, records: list[dict[str, Any]]) -> str:
    """Return a run's line of the table, from the loop's own stopwatch; starting the run is left out."""
    steps = [after["step"] - before["step"] for before, after in pairwise([{"step": 0}, *records])]
    seconds = [count / record["speed/env_steps_per_second"] for count, record in zip(steps, records, strict=True)]

    def spent(section: str) -> float:
        shares = (record.get(f"time_share/{section}", 0.0) for record in records)
        return sum(share * span for share, span in zip(shares, seconds, strict=True))

    total, stepping, evaluating = sum(seconds), spent("environments"), spent("evaluation")
    cells = (total, sum(steps) / total, stepping, evaluating, total - stepping - evaluating)
    return f"| {engine} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |"


def learned(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without what tells of speed."""
    return {name: value for name, value in record.items() if name.partition("/")[0] not in OF_TIME}


if __name__ == "__main__":
    sys.exit(main())
