"""Does a long run stay as it is? Watches one for half an hour and more: memory, descriptors, shared memory, speed.

    python -m scripts.soak --minutes 45 --output results/soak.md

Trains with `--flags` in a process of its own, with a replay so small that it is soon full, and looks at that process
and at its environments' processes every two seconds. A row of the table is a window of time; its figures are medians,
so that the processes of evaluations, which come and go, do not count. Once the replay is full and a checkpoint has been
written, everything has to stay as it is: ends with code 1 where the last third differs from the first by more
than its allowance. Speed counts as steps per second of processor time, which other work on the machine disturbs least.
Linux only.
"""

import argparse
import contextlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

from scripts.training_runs import Run

FLAGS = (
    "--preset mt4_cpu --aggregator aligned --seed 0 --total-steps 100000000 --replay.capacity 10000"
    " --checkpoint-every 40000"
)
SETTLED_AT = 60_000
"""Environment steps of these flags after which all has happened once: the replay is full, a checkpoint is written."""
LOOK_SECONDS = 2.0
TICKS = sysconf("SC_CLK_TCK")

ALLOWANCES = {
    "trainer MB": 0.01,
    "workers MB": 0.01,
    "trainer descriptors": 0.0,
    "worker descriptors": 0.0,
    "shared kB": 0.0,
    "files in /dev/shm": 0.0,
    "steps per CPU second": 0.05,
}
"""Largest relative difference between the first and the last third."""


@dataclass(frozen=True)
class Look:
    """What one process had at a moment."""

    pid: int
    allocated: float
    """MB of memory of its own: neither files, as libraries are, nor shared memory."""
    shared: float
    """kB of shared memory, by its share."""
    descriptors: int
    cpu: float
    """Seconds of processor time so far."""


@dataclass(frozen=True)
class Moment:
    """The run at a moment."""

    time: float
    """Seconds since the first."""
    trainer: Look
    children: tuple[Look, ...]
    files: int
    """In /dev/shm."""
    step: int
    """Environment steps in the records so far."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, watch, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45.0, help="(default: %(default)s)")
    parser.add_argument("--window", type=float, default=180.0, help="seconds of a row (default: %(default)s)")
    parser.add_argument("--flags", default=FLAGS, help="of mtrl.train (default: %(default)s)")
    parser.add_argument(
        "--settled-at", type=int, default=SETTLED_AT, help="steps until all has happened once (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="file to write the table to besides")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", tuple(shlex.split(args.flags)))
        moments, code = watch(run, args.minutes)
        about = run.start()
        steps = max((record["step"] for record in run.records("train")), default=0)
    rows = windows(moments, args.window)
    settled = [row for row in rows if row["step"] >= args.settled_at]
    verdicts = judge(settled)
    text = "\n".join(
        [
            "# A run that is watched",
            "",
            f"`python -m scripts.soak --minutes {args.minutes:g}`: `mtrl.train {args.flags}`,",
            f"{str(about['time'])[:10]}, commit {about['commit']}; {about['cpu']}, {about['cores']} cores.",
            f"It took {steps:,} environment steps and ended with code {code} when it was told to (SIGTERM: 143).",
            "",
            *table(rows),
            "",
            f"From {args.settled_at:,} steps on all has happened once. First and last third of the windows after that:",
            "",
            *verdicts,
        ]
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    return int(code != 143 or any("**" in line for line in verdicts))


def watch(run: Run, minutes: float) -> tuple[list[Moment], int]:
    """Train for so long, look every two seconds, and end the run by SIGTERM. Returns the looks and the exit code."""
    command = [sys.executable, "-m", "mtrl.train", *run.flags, "--run-dir", str(run.directory)]
    moments: list[Moment] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=2) as process:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(LOOK_SECONDS)
            with contextlib.suppress(OSError):  # a process ended between two readings
                moments.append(_moment(process.pid, run, time.monotonic() - began))
        process.terminate()
        return moments, process.wait()


def _moment(pid: int, run: Run, seconds: float) -> Moment:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    records = run.records("train") if (run.directory / "metrics.jsonl").exists() else []
    return Moment(
        seconds,
        _look(pid),
        tuple(_look(int(child)) for child in children),
        sum(1 for _ in Path("/dev/shm").iterdir()),
        max((record["step"] for record in records), default=0),
    )


def _look(pid: int) -> Look:
    folder = Path("/proc") / str(pid)
    sizes = dict(line.split()[:2] for line in (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:])
    times = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return Look(
        pid,
        float(sizes["Anonymous:"]) / 1e3,
        float(sizes["Pss_Shmem:"]),
        sum(1 for _ in (folder / "fd").iterdir()),
        (int(times[11]) + int(times[12])) / TICKS,
    )


def windows(moments: Sequence[Moment], seconds: float) -> list[dict[str, float]]:
    """Return the figures of every whole window. Of the children those count that were there most of the time."""
    seen = Counter(child.pid for moment in moments for child in moment.children)
    lasting = [pid for pid, count in seen.items() if count > len(moments) / 2]
    rows = []
    for number in range(int(moments[-1].time // seconds)):
        inside = [moment for moment in moments if number <= moment.time / seconds < number + 1]
        workers = [[child for child in moment.children if child.pid in lasting] for moment in inside]
        if not inside or any(len(found) != len(lasting) for found in workers):
            continue  # the first one, in which they are started
        median = statistics.median
        spent = [
            moment.trainer.cpu + sum(one.cpu for one in found) for moment, found in zip(inside, workers, strict=True)
        ]
        changes = [place for place in range(1, len(inside)) if inside[place].step != inside[place - 1].step]
        first, last = (changes[0], changes[-1]) if changes else (0, 0)
        cpu = spent[last] - spent[first]
        rows.append(
            {
                "minute": (number + 1) * seconds / 60,
                "step": inside[-1].step,
                "trainer MB": median(moment.trainer.allocated for moment in inside),
                "workers MB": median(sum(one.allocated for one in found) for found in workers),
                "trainer descriptors": median(moment.trainer.descriptors for moment in inside),
                "worker descriptors": median(sum(one.descriptors for one in found) for found in workers),
                "shared kB": median(moment.trainer.shared for moment in inside),
                "files in /dev/shm": median(moment.files for moment in inside),
                "steps per second": (inside[last].step - inside[first].step)
                / max(inside[last].time - inside[first].time, LOOK_SECONDS),
                "steps per CPU second": (inside[last].step - inside[first].step) / cpu if cpu else float("nan"),
            }
        )
    return rows


def table(rows: Sequence[dict[str, float]]) -> list[str]:
    """Return the windows as Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(f"{row[name]:,.{_digits(name)}f}" for name in names) + " |" for row in rows]


def _digits(name: str) -> int:
    return 1 if "MB" in name or name == "minute" else 0


def judge(rows: Sequence[dict[str, float]]) -> list[str]:
    """Return a line per figure that compares the first and the last third of the windows."""
    third = len(rows) // 3
    if not third:
        return ["**too few windows**"]
    lines = []
    for name, allowance in ALLOWANCES.items():
        first, last = (statistics.mean(row[name] for row in part) for part in (rows[:third], rows[-third:]))
        change = (last - first) / first if first else float(last != first)
        verdict = "as it was" if abs(change) <= allowance else "**changed**"
        lines.append(f"- {name}: {first:,.1f}, then {last:,.1f} ({change:+.1%}; allowed {allowance:.0%}): {verdict}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
