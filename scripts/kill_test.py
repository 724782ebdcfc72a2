"""Does a run survive being killed? Kills toy runs again and again, and compares them with runs that are left alone.

    python scripts/kill_test.py --kills 200 --output results/kill_test.md

A run saves after every vector step, with a replay so small that it wraps between starts, and is sent SIGKILL at a
random moment: one time in four while it is set up, else up to half a second after the first checkpoint of its start. It
is continued with --resume until it ends by itself; as many runs as it takes, with another method and seed each. Every
start is a fork of this process, which has imported everything once. Ends with code 1 where a run cannot be continued,
falls back by more than one checkpoint, or differs from the one left alone in any bit.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from compare_runs import differences

# Imported here, so that no start has to.
import mtrl.agents.mtsac
import mtrl.assembly
import mtrl.networks.mlp
import mtrl.trainer  # noqa: F401
from mtrl import checkpoint, train
from mtrl.run_directory import describe_environment

METHODS = ("aligned", "mean", "pcgrad", "famo", "moco", "dwa")
SETUP_SECONDS = 1.0
SAVING_SECONDS = 0.5
POLL_SECONDS = 0.002

FALLBACK = re.compile(r"using the checkpoint of step \d")


@dataclass
class Found:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By what the run was doing."""
    starts: int = 0
    runs: int = 0
    anew: int = 0
    """Starts after a kill that came before the first checkpoint: the run begins again."""
    fallbacks: list[int] = field(default_factory=list)
    """Checkpoints passed over as damaged, per start."""
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Kill, continue, compare; print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1200, help="environment steps of a run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file to write the summary to besides")
    args = parser.parse_args()
    begin = time.monotonic()
    found = Found()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        while sum(found.kills.values()) < args.kills and not found.problems:
            _one_run(Path(folder), args, moments, found)
    lines = summary(args, found, time.monotonic() - begin)
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    raise SystemExit(1 if found.problems else 0)


def _one_run(folder: Path, args: argparse.Namespace, moments: random.Random, found: Found) -> None:
    """Train one run, killing it as long as kills are left, and compare it with one left alone."""
    method, seed = METHODS[found.runs % len(METHODS)], found.runs
    flags = [
        *("--env", "toy", "--aggregator", method, "--seed", str(seed), "--total-steps", str(args.steps)),
        *("--envs-per-task", "1", "--warmup-steps", "20", "--network.hidden-dims", "16", "--agent.batch-size", "8"),
        *("--log-every", "40", "--eval-every", "400", "--eval-goals", "2", "--transference-every", "20"),
        *("--device", "cpu", "--threads", "1", "--replay.capacity", "50"),
    ]
    killed, alone = folder / f"killed-{seed}", folder / f"alone-{seed}"
    code = 1
    while code:
        code, output = _start_and_kill(killed, [*flags, "--checkpoint-every", "4"], args.kills, moments, found)
        found.fallbacks.append(len(FALLBACK.findall(output)))
        if found.fallbacks[-1] > 1:
            found.problems.append(f"{method}, seed {seed}: fell back by {found.fallbacks[-1]} checkpoints:\n{output}")
        if code > 0:
            found.problems.append(f"{method}, seed {seed}: cannot be continued, code {code}:\n{output}")
            return
    code, output = _wait(
        _fork([*flags, "--checkpoint-every", "0", "--run-dir", str(alone)], folder / "log"), folder / "log"
    )
    assert code == 0, output
    differing = differences(killed, alone)
    found.problems += [f"{method}, seed {seed}: differs from the run left alone: {place}" for place in differing[:20]]
    found.runs += 1
    print(f"{method}, seed {seed}: {sum(found.kills.values())} kills so far, {len(differing)} differences", flush=True)
    for run in (killed, alone):
        shutil.rmtree(run)


def _start_and_kill(run: Path, flags: list[str], kills: int, moments: random.Random, found: Found) -> tuple[int, str]:
    """Start the run, or continue it, and kill it while kills are left; return exit code, -9 if killed, and output."""
    saved = checkpoint.latest(run / "checkpoints")
    if saved is None and run.exists():
        shutil.rmtree(run)
        found.anew += 1
    log = run.with_name("log")
    pid = _fork(["--resume", str(run)] if saved else [*flags, "--run-dir", str(run)], log)
    found.starts += 1
    if sum(found.kills.values()) == kills:
        return _wait(pid, log)
    is_early = moments.random() < 0.25
    delay = moments.uniform(0, SETUP_SECONDS if is_early else SAVING_SECONDS)
    while not is_early and checkpoint.latest(run / "checkpoints") == saved and not _has_ended(pid):
        time.sleep(POLL_SECONDS)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and not _has_ended(pid):
        time.sleep(POLL_SECONDS)
    os.kill(pid, signal.SIGKILL)
    code, output = _wait(pid, log)
    if code == -signal.SIGKILL:
        found.kills[_interrupted(run, saved)] += 1
    return code, output


def _interrupted(run: Path, saved: Path | None) -> str:
    """Tell from what lies in the folder what the run was doing when it was killed."""
    folder = run / "checkpoints"
    if list(folder.glob(".*")):
        return "within a save: a checkpoint not yet in its place, or an old one not yet deleted"
    if checkpoint.latest(folder) == saved:
        return "while it was set up, or before its first save"
    return "between two saves"


def _fork(flags: list[str], log: Path) -> int:
    """Start a training in a process of its own; return the process's id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["train.py", *flags]
    code = 1
    try:
        code = train.main(flags)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _has_ended(pid: int) -> bool:
    """Whether the process has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(pid: int, log: Path) -> tuple[int, str]:
    """Return the process's exit code, or minus the signal that ended it, and what it said."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8")


def summary(args: argparse.Namespace, found: Found, seconds: float) -> list[str]:
    """Return the lines of the report."""
    about = describe_environment()
    versions = f"{about['cpu']}, {about['cores']} cores, python {sys.version.split()[0]}, torch {torch.__version__}"
    command = f"python scripts/kill_test.py --kills {args.kills} --steps {args.steps} --seed {args.seed}"
    rows = {
        "kills": sum(found.kills.values()),
        **{f"... {where}": count for where, count in sorted(found.kills.items())},
        f"runs ({', '.join(METHODS[: found.runs])})": found.runs,
        "starts": found.starts,
        "... from the beginning, the kill having come before the first checkpoint": found.anew,
        "checkpoints passed over as damaged, in all starts": sum(found.fallbacks),
        "... in one start, at most": max(found.fallbacks, default=0),
        "starts that failed, and places in which a run differs from the one left alone": len(found.problems),
        "minutes": round(seconds / 60),
    }
    return [
        "# Runs that are killed",
        "",
        f"`{command}`, {str(about['time'])[:10]},",
        f"commit {about['commit']}; {versions}.",
        "",
        "Toy runs that save after every vector step are sent SIGKILL at random moments and continued with",
        "`--resume`, until they end; then they are compared with runs of the same flags that were left alone: every",
        "tensor and row of the last checkpoint, all of `metrics.jsonl` and of TensorBoard but for times.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in rows.items()),
        *(f"\n{problem}" for problem in found.problems),
    ]


if __name__ == "__main__":
    main()
