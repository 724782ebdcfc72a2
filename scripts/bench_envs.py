"""What do Meta-World's environments cost, beside MuJoCo's own calls, the stock classes and EnvPool?

One section each, chosen by `--sections`:
    one-core   everything bound to one core: MuJoCo's calls alone (five substeps and the closing forward pass of every
               environment, in a compiled loop), the native engine with one worker, the loop over stock `env.step`,
               Meta-World's own `SyncVectorEnv`, EnvPool; and what a worker's wake-up costs beyond the physics
    all-cores  the native engine with several numbers of workers, Meta-World's own `AsyncVectorEnv`, EnvPool
    startup    from the call that builds the environments to the first observation, in fresh processes: with empty
               caches, with what those left, and with a process per task as Meta-World does it
    memory     proportional set size (PSS) of the workers, in a fresh process
    tasks      physics, native engine and stock task by task, four copies of each, steps within an episode

What is timed. A round is `--steps` vector steps, 500 by default: as long as an episode, so that exactly one episode of
every environment ends in it and one reset is paid for, in all variants. Its actions are random. Physics and the loop
over `env.step` follow the native engine through the same states: same goals, same actions; the other variants draw
goals of their own. Physics are MuJoCo's calls only, resets and moves of the mocap apart. Wall time is that of the call,
CPU time that of all processes that take part. The variants take turns ten times in a round, so that a change of the
machine's speed hits all alike; a first turn of each is not counted. Before it, the native engine begins an episode with
each of the 50 goals (`--goals`): what a reset leads to is simulated once and then restored, and a training visits
every goal many times. This process collects no garbage while it measures, which spares the stock loop more than others;
worker processes do as they always do.

    python -m scripts.bench_envs --output results/environments.md

needs Linux, and about half an hour on two idle cores. EnvPool is measured where `--envpool-python` names an interpreter
that has it.
"""

import argparse
import importlib.metadata
import shutil
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtrl.envs import check, parse, task_names
from mtrl.envs.metaworld.tasks import BENCHMARKS, MAX_EPISODE_STEPS, NUM_GOALS
from mtrl.machine import usable_cores
from mtrl.run_directory import describe_environment
from scripts.env_startup import Start, empty_cache, start_native, start_stock
from scripts.env_turns import Speed, overhead, ratios, take_turns
from scripts.env_variants import EnvPool, Native, Physics, Stock, StockVector, Variant, one_core

COPIES, TASK_STEPS = 4, 100
"""In the section `tasks`: of each task, so that several rows share a wake-up as in a benchmark, and their steps."""
MEMORY_WORKERS, MEMORY_EPISODES = 2, 3

LEAST_SHARE = 0.85
"""Of the physics' rate, that the native engine is to reach on one core."""
LEAST_RATIO = 5.0
"""Of the rate of Meta-World's own processes."""
MOST_OVERHEAD = 60e-6
MOST_START = {"mt10": 3.0, "mt50": 6.0}
MOST_MEMORY = {"mt50": 2.5e9}
ENVPOOL_NOTE = (
    "EnvPool's environments are not these: another MuJoCo, other goals, rewards that differ from Meta-World's in some"
    " tasks. Its rate tells what compiled environments reach, not what a training gets."
)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", default=["mt10", "mt50"], help="benchmarks of Meta-World, or their tasks")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=MAX_EPISODE_STEPS, help="vector steps of a round")
    parser.add_argument("--goals", type=int, default=NUM_GOALS, help="begun once before anything is timed")
    parser.add_argument("--workers", type=int, nargs="+", default=worker_counts(), help="default: %(default)s")
    parser.add_argument("--envpool-python", default=sys.executable, metavar="PYTHON", help="that has EnvPool")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    parser.add_argument("--note", help="a sentence about the machine, for the head of the report")
    args = parser.parse_args()
    if problem := mistake(args):
        parser.error(problem)
    warnings.simplefilter("ignore")  # Meta-World's, about spaces
    lines = head(args.steps, args.note)
    for name in args.env:
        lines += ["", f"## {name}"]
        for section in args.sections:
            lines += ["", *SECTIONS[section](name, args)]
            print(f"measured: {name}, {section}", file=sys.stderr)
    text = "\n".join(lines) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)


def mistake(args: argparse.Namespace) -> str | None:
    """Say what is wrong with the arguments."""
    for name in args.env:
        if parse(name)[0] not in BENCHMARKS:
            return f"--env {name}, expected a benchmark of Meta-World ({', '.join(BENCHMARKS)}) or some of its tasks"
        try:
            check(name)
        except ValueError as problem:
            return f"--env {name}: {problem}"
    for name, least in (("rounds", 1), ("steps", 1), ("goals", 0)):
        if getattr(args, name) < least:
            return f"--{name} {getattr(args, name)}, expected {least} or more"
    if args.goals > NUM_GOALS:
        return f"--goals {args.goals}, expected at most {NUM_GOALS}, which is all"
    if min(args.workers) < 1:
        return f"--workers {min(args.workers)}, expected 1 or more"
    if shutil.which(args.envpool_python) is None:
        return f"--envpool-python {args.envpool_python}: no such program, expected a Python interpreter"
    return None


def head(steps: int, note: str | None) -> list[str]:
    """Return the title and where the numbers come from."""
    about: dict[str, Any] = describe_environment()
    versions = about["versions"] | {"numba": importlib.metadata.version("numba")}
    packages = ("python", "metaworld", "mujoco", "gymnasium", "numpy", "numba")
    named = ", ".join(f"{name} {versions[name]}" for name in packages)
    return [
        "# What the environments cost",
        "",
        f"`python -m scripts.bench_envs {' '.join(sys.argv[1:])}`, {str(about['time'])[:10]},",
        f"commit {about['commit']}; {about['cpu']}, {about['cores']} usable cores; {named}.",
        *([note] if note else []),
        "",
        f"A round is {steps} vector steps. An episode is {MAX_EPISODE_STEPS}; its reset counts in the round in which",
        "it ends. Steps are those of single environments. The variants took turns; medians and best of the rounds.",
        "What exactly is timed stands in the script.",
    ]


# ------------------------------------------------------------------------------------------------------------- sections


def one_core_section(env_name: str, args: argparse.Namespace) -> list[str]:
    """Measure everything bound to one core."""
    with one_core():
        leader = Native(env_name, workers=1, goals=args.goals)
        physics = Physics(env_name, leader)
        stock = [Stock(env_name, leader), StockVector(env_name, "sync")]
        envpool = EnvPool.if_installed(env_name, args.envpool_python)
        found = take_turns([leader, physics, *stock, *envpool], args.rounds, args.steps, len(task_names(env_name)))
    return [
        "### One core",
        "",
        *speed_table(found, physics.name, len(envpool) == 0),
        "",
        *one_core_targets(found[leader.name], found[physics.name]),
        f"- Beginning the first {args.goals} episodes of every environment took {leader.visiting_seconds:.1f} s.",
    ]


def one_core_targets(native: Speed, physics: Speed) -> list[str]:
    """Return how near the native engine comes to the physics, and how far it stays."""
    share = statistics.median(ratios(physics.wall(), native.wall()))
    share_cpu = statistics.median(ratios(physics.cpu(), native.cpu()))
    beyond, beyond_cpu = overhead(native, physics)
    first = (
        f"- Native reaches {LEAST_SHARE:.0%} of the physics' rate: {met(share >= LEAST_SHARE)}, {share:.1%} in wall "
    )
    first += f"time, {share_cpu:.1%} in CPU time."
    most = 1e6 * MOST_OVERHEAD
    second = (
        f"- A wake-up of the worker, with {native.rows} rows, costs less than {most:.0f} us beyond their physics: "
        f"{met(beyond_cpu < MOST_OVERHEAD)} in the worker's own CPU time, {1e6 * beyond_cpu:.0f} us; with the parent's "
        f"part and the way there and back, all on this one core, {met(beyond < MOST_OVERHEAD)}, {1e6 * beyond:.0f} us "
        "of wall time. (Wall: median over vector steps, each less the physics' time from the same states; CPU: mean; "
        "parts of a round in which an episode ends are left out.)"
    )
    return [first, second]


def all_cores_section(env_name: str, args: argparse.Namespace) -> list[str]:
    """Measure with processes on all cores."""
    rows = len(task_names(env_name))
    counts = sorted({min(count, rows) for count in args.workers})
    native = [Native(env_name, workers=count, goals=args.goals) for count in counts]
    stock = StockVector(env_name, "async")
    envpool = EnvPool.if_installed(env_name, args.envpool_python)
    found = take_turns([*native, stock, *envpool], args.rounds, args.steps, rows)
    times = {one.name: ratios(found[stock.name].wall(), found[one.name].wall()) for one in native}
    best = max(times, key=lambda name: statistics.median(times[name]))
    ratio = statistics.median(times[best])
    target = f"- Native reaches {LEAST_RATIO:.0f} times the rate of Meta-World's own processes: "
    target += f"{met(ratio >= LEAST_RATIO)}, {ratio:.1f} times ({best})."
    return [
        f"### All {usable_cores()} cores",
        "",
        *speed_table(found, stock.name, len(envpool) == 0),
        "",
        target,
    ]


def startup_section(env_name: str, args: argparse.Namespace) -> list[str]:
    """Measure how long a fresh process waits for its first observation."""
    workers = usable_cores()
    with empty_cache():
        cold = start_native(env_name, workers)
        warm = [start_native(env_name, workers) for _ in range(args.rounds)]
    found = {"native, empty caches": [cold], "native": warm, "stock `AsyncVectorEnv`": [start_stock(env_name)]}
    lines = [
        f"### Start-up, {workers} workers",
        "",
        "| | starts | median, s | best | imports before, s |",
        "|---|---|---|---|---|",
    ]
    for name, starts in found.items():
        seconds = [start.start for start in starts]
        cells = f"{statistics.median(seconds):.2f} | {min(seconds):.2f}"
        lines.append(f"| {name} | {len(starts)} | {cells} | {statistics.median(s.imports for s in starts):.2f} |")
    if env_name in MOST_START:
        most, seconds = MOST_START[env_name], statistics.median(start.start for start in warm)
        lines += ["", f"- Native starts in less than {most:.0f} s: {met(seconds < most)}, {seconds:.2f} s."]
    return lines


def memory_section(env_name: str, args: argparse.Namespace) -> list[str]:
    """Measure the memory of the workers."""
    num_steps = MEMORY_EPISODES * args.steps
    native, stock = start_native(env_name, MEMORY_WORKERS, num_steps), start_stock(env_name, args.steps)
    lines = [
        "### Memory of the workers (PSS)",
        "",
        "| | processes | at first, GB | later | largest |",
        "|---|---|---|---|---|",
        memory_row(f"native, after {num_steps} steps", native),
        memory_row(f"stock `AsyncVectorEnv`, after {args.steps} steps", stock),
    ]
    if env_name in MOST_MEMORY:
        most, total = MOST_MEMORY[env_name], sum(native.after)
        lines += ["", f"- Native workers hold less than {most / 1e9} GB: {met(total < most)}, {total / 1e9:.2f} GB."]
    return lines


def memory_row(name: str, found: Start) -> str:
    """Return a row of the table of memory."""
    cells = [sum(found.before), sum(found.after), max(found.after)]
    return f"| {name} | {len(found.after)} | {' | '.join(f'{size / 1e9:.2f}' for size in cells)} |"


def tasks_section(env_name: str, args: argparse.Namespace) -> list[str]:
    """Measure one task after the other."""
    suite, _ = parse(env_name)
    lines = [
        f"### Task by task, {COPIES} copies of each on one core, us of CPU time per step, no episode ends",
        "",
        "| task | physics | native | stock | physics / native | stock / native |",
        "|---|---|---|---|---|---|",
    ]
    found = []
    for task in task_names(env_name):
        with one_core():
            leader = Native(f"{suite}:{task}", workers=1, copies=COPIES)
            variants: list[Variant] = [leader]
            variants += [kind(f"{suite}:{task}", leader, COPIES) for kind in (Physics, Stock)]
            speeds = take_turns(variants, args.rounds, min(args.steps, TASK_STEPS), COPIES)
        native, physics, stock = (statistics.median(speed.cpu()) for speed in speeds.values())
        found.append((physics, native, stock))
        lines.append(task_row(task, *found[-1]))
    return [*lines, task_row("**mean**", *np.mean(found, axis=0))]


def task_row(name: str, physics: float, native: float, stock: float) -> str:
    """Return a row of the table of tasks."""
    cells = " | ".join(f"{1e6 * seconds:.0f}" for seconds in (physics, native, stock))
    return f"| {name} | {cells} | {physics / native:.2f} | {stock / native:.2f} |"


SECTIONS: dict[str, Callable[[str, argparse.Namespace], list[str]]] = {
    "one-core": one_core_section,
    "all-cores": all_cores_section,
    "startup": startup_section,
    "memory": memory_section,
    "tasks": tasks_section,
}


# -------------------------------------------------------------------------------------------------------------- writing


def speed_table(found: dict[str, Speed], reference: str, lacks_envpool: bool) -> list[str]:
    """Return rates, times and how they compare with the variant `reference`."""
    lines = [
        f"| | steps/s: median | best | us of wall time | of CPU time | best | rate / {reference} | CPU of that / own |",
        "|---|---|---|---|---|---|---|---|",
    ]
    other = found[reference]
    for name, speed in found.items():
        wall, cpu = speed.wall(), speed.cpu()
        cells = [
            name,
            f"{1 / statistics.median(wall):,.0f}",
            f"{1 / min(wall):,.0f}",
            f"{1e6 * statistics.median(wall):.1f}",
            f"{1e6 * statistics.median(cpu):.1f}",
            f"{1e6 * min(cpu):.1f}",
            f"{statistics.median(ratios(other.wall(), wall)):.2f}",
            f"{statistics.median(ratios(other.cpu(), cpu)):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if lacks_envpool:
        return [*lines, f"| {EnvPool.name} | not installed | | | | | | |"]
    return [*lines, "", ENVPOOL_NOTE]


def worker_counts() -> list[int]:
    """Return powers of two up to the number of usable cores, that number, and its double."""
    cores = usable_cores()
    return sorted({2**power for power in range(cores.bit_length())} | {cores, 2 * cores})


def met(is_met: bool) -> str:
    """Say what became of a target."""
    return "met" if is_met else "**missed**"


if __name__ == "__main__":
    main()
