"""How long does a run with the largest replay take to leave when it is told to? For each signal, and for a second one.

    python -m scripts.stop_time --output results/stop_time.md

Every row starts a training in a process of its own, fills its replay with random transitions before the first step, so
that all of it has still to be saved, and signals when it is learning. Timed is from the signal to the end of the
process. The last column is another save of the same run, which finds the rows on the disk: continued, told to stop
again. A second signal comes two seconds after a first one, in the middle of its save. Linux only.
"""

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtrl import checkpoint, train
from mtrl.interfaces import Step
from mtrl.run_directory import describe_environment
from mtrl.signals import StopRequest
from mtrl.trainer import Trainer

FLAGS = (
    "--env mt50 --aggregator aligned --warmup-steps 1 --eval-every 0 --checkpoint-every 0 --network.hidden-dims 400 400"
)
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
MOST_SECONDS, MOST_SECONDS_OF_SECOND = 20.0, 2.0
LEARNING_SECONDS = 5.0
"""After which the signal comes."""
SAVING_SECONDS = 2.0
"""Between a first and a second signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Start, signal, wait; print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", default=FLAGS, help="of mtrl.train (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file to write the table to besides")
    args = parser.parse_args(argv)
    flags = shlex.split(args.flags)
    about = describe_environment()
    rows, is_met = [], True
    with tempfile.TemporaryDirectory() as folder:
        for name in SIGNALS:
            run = Path(folder) / name
            code, seconds = stop(["--run-dir", str(run), *flags], name, is_filled=True)
            megabytes = sum(file.stat().st_size for file in (run / "checkpoints").rglob("*")) / 1e6
            code_again, again = stop(["--resume", str(run)], name, is_filled=False)
            step = max(checkpoint.by_step(run / "checkpoints"), default=0)
            rows.append(
                f"| {name} | {code}, {code_again} | {seconds:.1f} | {megabytes:,.0f} | {step:,} | {again:.1f} |"
            )
            is_met = is_met and max(seconds, again) <= MOST_SECONDS and code == code_again == 128 + signal.Signals[name]
            print(rows[-1], file=sys.stderr, flush=True)
        run = Path(folder) / "twice"
        code, seconds = stop(["--run-dir", str(run), *flags], "SIGTERM", is_filled=True, is_repeated=True)
        is_met = is_met and seconds <= MOST_SECONDS_OF_SECOND
        left = checkpoint.latest(run / "checkpoints")
    text = "\n".join(
        [
            "# Runs that are told to stop",
            "",
            "`python -m scripts.stop_time`: `mtrl.train`",
            f"`{args.flags}`,",
            f"{str(about['time'])[:10]}, commit {about['commit']}; {about['cpu']}, {about['cores']} cores.",
            "",
            "| signal | codes | s to the end, nothing saved before | MB | step | s to the end, told once more |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"A second SIGTERM, {SAVING_SECONDS:g} s after the first, ended the process in {seconds:.2f} s with code",
            f"{code}; it left {'a checkpoint' if left else 'no checkpoint, as there was none before'}.",
            "",
            f"At most {MOST_SECONDS:g} s, and {MOST_SECONDS_OF_SECOND:g} s for the second signal:",
            "met." if is_met else "**missed.**",
        ]
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    return int(not is_met)


def stop(flags: list[str], name: str, *, is_filled: bool, is_repeated: bool = False) -> tuple[int, float]:
    """Train, stop by a signal, and return exit code, or minus the signal, and seconds since the last signal."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        _train(flags, write, is_filled)
    os.close(write)
    with os.fdopen(read) as told:
        if not told.readline():  # it ended before it began
            raise RuntimeError(f"mtrl.train {shlex.join(flags)} failed")
        time.sleep(LEARNING_SECONDS)
        os.kill(pid, signal.Signals[name])
        if is_repeated:
            time.sleep(SAVING_SECONDS)
            os.kill(pid, signal.Signals[name])
        began = time.monotonic()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), time.monotonic() - began


def _train(flags: list[str], told: int, is_filled: bool) -> None:
    run = Trainer.run

    def run_filled(self: Trainer, stop: StopRequest) -> None:
        if is_filled:
            _fill(self)
        os.write(told, b"learning\n")
        run(self, stop)

    Trainer.run = run_filled
    os.dup2(2, 1)  # the table alone goes to standard output
    sys.argv = ["train.py", *flags]
    code = 1
    try:
        code = train.main(flags)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def _fill(trainer: Trainer) -> None:
    """Store random transitions, as many as the replay holds."""
    spec, replay = trainer.env.spec, trainer.replay
    rows = (spec.num_tasks, spec.envs_per_task)
    generator = np.random.default_rng(0)
    obs, final_obs = generator.random((2, *rows, spec.obs_dim), np.float32)
    action = generator.random((*rows, spec.action_dim), np.float32)
    no, yes, info = np.zeros(rows, bool), np.ones(rows, bool), np.zeros((*rows, len(spec.info_names)))
    step = Step(obs, final_obs, generator.random(rows, np.float32), no, no, no, no.astype(np.int64), yes, info)
    while replay.size.min() < replay.capacity:
        replay.add(obs, action, step)


if __name__ == "__main__":
    sys.exit(main())
