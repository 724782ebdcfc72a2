"""What does a whole update take, per method, beside a loop over the tasks and beside what the hardware must do?

Times `MTSAC.update` (targets, gradients, Gramian, weights, combination, Adam, for critics and actor; temperatures,
target critics), recorded and repeated as in training, at full size (39 observations, 4 actions, 3x400, 128 transitions
per task, random data), and in the same turns
    by steps    the same, not recorded (`--compile off`)
    loop        the same update with one backward per task over a shared graph (what most codes do)
    own passes  the same update with one forward and backward per task, on that task's transitions alone
    floor       the matrix products that no implementation can leave out, each at the rate this machine reaches on a
                product of that kind and shape alone, and the bytes that Adam, targets, Gramian and combination must
                move, at the rate of a copy as large as the task gradients

The variants take turns, so that a change of the machine's speed hits all alike; the tables show medians and ratios. The
loops take part in the first rounds only.

    OMP_WAIT_POLICY=PASSIVE python -m scripts.bench_update --threads 2 --output results/update.md

(as `mtrl.train` sets it). The loops of fifty tasks take minutes; `--loops` names the methods that are looped.
`--matmul-precision` compares with updates whose matrix products are rounded so.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch.profiler import ProfilerActivity, profile

from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import names
from mtrl.aggregators.base import Need
from mtrl.interfaces import Batch
from mtrl.memory import keep_freed_memory
from mtrl.networks.mlp import MLP
from mtrl.precision import Precision, has_precision, products_in
from mtrl.recording import RUNS_BEFORE, record
from mtrl.run_directory import describe_environment
from scripts import bench_gradients
from scripts.update_by_loop import loop, own_passes, update_by

OBS_DIM, ACTION_DIM, BATCH_SIZE = 39, 4, 128
HIDDEN_DIMS = (400, 400, 400)
METHODS = ("mean", "aligned", "pcgrad", "nash", "dibs", "cagrad", "it_mtl")

MOST_BESIDE_MEAN = {10: 1.4, 50: 2.2}
"""Number of tasks -> what `aligned` may take, in updates of `mean`."""
LEAST_BESIDE_LOOP = {10: 4.0, 50: 12.0}
"""Number of tasks -> how many times faster than its loop `aligned` has to be."""
FLOAT_BYTES = 4
PROFILED_UPDATES = 3


class Work(NamedTuple):
    """What an update cannot do without: operations of each kind of matrix product, and bytes."""

    forward: float
    input_gradient: float
    weight_gradient: float
    moved: float


class Rates(NamedTuple):
    """What the machine reaches: operations per second of each kind of matrix product, bytes per second."""

    forward: float
    input_gradient: float
    weight_gradient: float
    moved: float


class Measured(NamedTuple):
    """Median seconds of whole updates of one number of tasks."""

    num_tasks: int
    update: dict[str, float]
    loop: dict[str, float]
    own_passes: dict[str, float]
    floor: dict[str, float]
    rates: Rates
    dearest: dict[str, list[tuple[str, float]]]
    """Method -> the dearest operations of an update and their shares of its time."""
    by_steps: Mapping[str, float] = {}
    """Method -> seconds of the same update where it is not recorded."""
    precision: Precision = "float32"
    """What the products of `rounded` were rounded to."""
    rounded: Mapping[str, float] = {}
    """Method -> seconds of the same update in that precision; empty where it is float32."""


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--methods", nargs="+", choices=names(), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--loops", nargs="*", choices=names(), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--loop-rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--matmul-precision", choices=get_args(Precision), default="float32", help="to compare with")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, for one thread on a busy machine")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    parser.add_argument("--note", help="a sentence about the machine, for the head of the report")
    args = parser.parse_args()
    if args.cpu_time and (args.threads > 1 or args.device != "cpu"):
        parser.error(f"--cpu-time needs --threads 1 and --device cpu, got {args.threads} and {args.device}")
    if not has_precision(torch.device(args.device), args.matmul_precision):
        parser.error(f"--matmul-precision: {args.device} has no products in {args.matmul_precision}")
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    lines = head(args.threads, args.device, "CPU seconds of the process" if args.cpu_time else "wall time", args.note)
    found = []
    for num_tasks in args.tasks:
        looped = [method for method in args.methods if method in args.loops]
        rounds, precision = (args.rounds, args.loop_rounds), args.matmul_precision
        found.append(measure(num_tasks, args.methods, looped, args.device, *rounds, clock=clock, precision=precision))
        print(f"measured: {num_tasks} tasks", file=sys.stderr)
    lines += ["## Targets", "", *summary(found), *(line for one in found for line in table(one))]
    text = "\n".join(lines) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)


# --------------------------------------------------------------------------------------------------------- the floor


def least_work(agent: MTSAC, num_tasks: int, batch_size: int) -> Work:
    """Return what an update cannot do without. The networks are perceptrons: all their parameters are shared.

    With A and C the entries of the weight matrices of the actor and of both critics, A1 and C1 those of their first
    layers, Ca those of the critics' first layers that see the action, and n = task x batch rows, a multiplication and
    an addition counting as 2:
        targets      2n (A + C) forward
        critic loss  2n C forward, 2n C for weights, 2n (C - C1) for inputs
        actor loss   2n (A + C) forward, 2n A for weights, 2n (A - A1 + C - C1 + Ca) for inputs
    and the bytes of P parameters of a component in float32: Adam reads 4 and writes 3 numbers per parameter, a target
    critic reads 2 and writes 1; the Gramian and the combination each read the task gradients once, T numbers per
    parameter, and the combination writes 1.
    """
    actor, critic = ([leaf for leaf in part.leaves if leaf.dim() == 2] for part in (agent.actor, agent.critic))
    A, C = (sum(weight.numel() for weight in weights) for weights in (actor, critic))
    num_layers = len(actor)
    A1, C1 = actor[0].numel(), sum(weight.numel() for weight in critic[::num_layers])
    Ca = sum(len(weight) * agent.action_dim for weight in critic[::num_layers])
    rows = 2.0 * num_tasks * batch_size
    num_params = {part.name: len(part.parameters.flat) for part in (agent.actor, agent.critic)}
    moved = 3 * num_params["critic"]
    for part in (agent.actor, agent.critic):
        reads = part.aggregator.need.has_gramian + (part.aggregator.need >= Need.GRAMIAN)
        moved += num_params[part.name] * (7 + reads * num_tasks + (reads > 0))
    return Work(
        forward=rows * (2 * A + 3 * C),
        input_gradient=rows * (A - A1 + 2 * (C - C1) + Ca),
        weight_gradient=rows * (A + C),
        moved=float(FLOAT_BYTES * moved),
    )


def probes(num_tasks: int, batch_size: int, width: int, num_params: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return one product of each kind, in the layout that layers have, and one copy."""
    num_rows = num_tasks * batch_size
    x, y = torch.rand(2, num_rows, width, device=device).unbind()
    weight = torch.rand(width, width, device=device)
    source, sink = torch.rand(2, num_tasks * num_params, device=device).unbind()
    return {
        "forward": lambda: x @ weight.T,
        "input_gradient": lambda: y @ weight,
        "weight_gradient": lambda: y.T @ x,
        "moved": lambda: sink.copy_(source),
    }


def floor(work: Work, rates: Rates) -> float:
    """Return the seconds that the work takes at these rates."""
    return sum(amount / rate for amount, rate in zip(work, rates, strict=True))


# --------------------------------------------------------------------------------------------------------- measuring


def measure(
    num_tasks: int,
    methods: Sequence[str],
    looped: Sequence[str],
    device: str,
    rounds: int,
    loop_rounds: int,
    batch_size: int = BATCH_SIZE,
    hidden_dims: tuple[int, ...] = HIDDEN_DIMS,
    clock: Callable[[], float] = time.perf_counter,
    precision: Precision = "float32",
) -> Measured:
    """Time updates of all methods, also in a lower precision, and of some by loops, in turns."""
    batch = random_batch(num_tasks, batch_size, device)
    new_agent = partial(make_agent, num_tasks, hidden_dims, device)
    agents = {method: new_agent(method) for method in methods}
    variants: dict[tuple[str, str], tuple[Callable[[], Any], int]] = {
        ("update", method): (recorded(agent, batch), rounds) for method, agent in agents.items()
    }
    variants |= {("by steps", method): (partial(new_agent(method).update, batch), rounds) for method in methods}
    lower = methods if precision != "float32" else ()
    variants |= {
        ("rounded", method): (partial(update_in, precision, new_agent(method), batch), rounds) for method in lower
    }
    for name, find in {"loop": loop, "own passes": own_passes}.items():
        variants |= {
            (name, method): (partial(update_by, find, new_agent(method), batch), loop_rounds) for method in looped
        }
    agent = agents[methods[0]]
    width, num_params = hidden_dims[-1], len(agent.critic.parameters.flat)
    kinds = probes(num_tasks, batch_size, width, num_params, device)
    variants |= {("probe", kind): (probe, rounds) for kind, probe in kinds.items()}
    seconds = dict(zip(variants, time_in_turns(list(variants.values()), device, clock), strict=True))
    product = 2.0 * num_tasks * batch_size * width**2
    amounts = Work(product, product, product, 2.0 * FLOAT_BYTES * num_tasks * num_params)
    rates = Rates(*(amount / seconds["probe", kind] for kind, amount in amounts._asdict().items()))
    work = {method: least_work(agent, num_tasks, batch_size) for method, agent in agents.items()}
    shown = [method for method in ("mean", "aligned") if method in agents]
    return Measured(
        num_tasks,
        {method: seconds["update", method] for method in methods},
        {method: seconds["loop", method] for method in looped},
        {method: seconds["own passes", method] for method in looped},
        {method: floor(work[method], rates) for method in methods},
        rates,
        {method: dearest(variants["update", method][0], device) for method in shown},
        {method: seconds["by steps", method] for method in methods},
        precision,
        {method: seconds["rounded", method] for method in lower},
    )


def recorded(agent: MTSAC, batch: Batch) -> Callable[[], object]:
    """Return the record of the agent's update."""
    for _ in range(RUNS_BEFORE["cuda"]):
        agent.update(batch)
    return record(partial(agent.update, batch), agent.streams(), agent.device)[1]


def update_in(precision: Precision, agent: MTSAC, batch: Batch) -> None:
    """Update as a run of that `--matmul-precision` does."""
    with products_in(precision):
        agent.update(batch)


def time_in_turns(
    variants: Sequence[tuple[Callable[[], object], int]], device: str, clock: Callable[[], float]
) -> list[float]:
    """Run the variants in turns, each for its number of rounds after one to warm up; return their median seconds.

    A variant of fewer rounds than others is not warmed up: it is a loop that takes long.
    """
    most = max(rounds for _, rounds in variants)
    seconds: list[list[float]] = [[] for _ in variants]
    for turn in range(most + 1):
        for (variant, rounds), times in zip(variants, seconds, strict=True):
            if not (rounds == most or 1 <= turn <= rounds):
                continue
            start = clock()
            variant()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn > 0:
                times.append(clock() - start)
    return [sorted(times)[(len(times) - 1) // 2] for times in seconds]


def dearest(update: Callable[[], object], device: str) -> list[tuple[str, float]]:
    """Return the ten dearest operations of an update and their shares of the time all of them take."""
    activities = [ProfilerActivity.CPU if device == "cpu" else ProfilerActivity.CUDA]
    with profile(activities=activities) as found:
        for _ in range(PROFILED_UPDATES):
            update()
    times = {
        event.key: event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        for event in found.key_averages()
    }
    total = sum(times.values())
    return [(name, times[name] / total) for name in sorted(times, key=lambda name: -times[name])[:10]]


def make_agent(num_tasks: int, hidden_dims: tuple[int, ...], device: str, method: str) -> MTSAC:
    """Build an agent whose critics and actor use the method."""
    network = partial(MLP, MLP.Config(hidden_dims=hidden_dims))
    return bench_gradients.make_agent(num_tasks, network, torch.device(device), method)


def random_batch(num_tasks: int, batch_size: int, device: str) -> Batch:
    """Draw transitions."""
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randn, num_tasks, batch_size, generator=generator, device=device)
    task = torch.arange(num_tasks, device=device)[:, None].expand(num_tasks, batch_size)
    return Batch(
        obs=draw(OBS_DIM),
        action=draw(ACTION_DIM).tanh(),
        reward=draw(),
        next_obs=draw(OBS_DIM),
        terminated=torch.zeros(num_tasks, batch_size, device=device),
        task=task,
    )


# ----------------------------------------------------------------------------------------------------------- writing


def head(threads: int, device: str, quantity: str, note: str | None) -> list[str]:
    """Return the title and where the numbers come from."""
    about: dict[str, Any] = describe_environment()
    hardware = about["cpu"] if device == "cpu" else torch.cuda.get_device_name(device)
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    return [
        "# What an update takes",
        "",
        f"`python -m scripts.bench_update {' '.join(sys.argv[1:])}`, {str(about['time'])[:10]},",
        f"commit {about['commit']}; {hardware}, {threads} thread(s) (waiting: {waiting}), torch {torch.__version__}.",
        *([note] if note else []),
        "",
        f"Whole updates of critics {'x'.join(map(str, HIDDEN_DIMS))} and an actor of the same size, {BATCH_SIZE}",
        f"transitions per task; medians ({quantity}) of variants that took turns.",
        "*by steps*: not recorded (`--compile off`). *loop*: one backward per task over a shared graph.",
        "*own passes*: one forward and backward per task on its own transitions. Both are the same update otherwise",
        "and give the same parameters. *floor*: matrix products at the rates below, and the bytes of Adam, targets,",
        "Gramian and combination (formulas in the script), without biases, ReLUs, losses and a method's own problem.",
        "",
    ]


def summary(found: Sequence[Measured]) -> list[str]:
    """Return the targets and what became of them."""
    lines = []
    for one in found:
        where, aligned = f"{one.num_tasks} tasks", one.update.get("aligned")
        most, least = MOST_BESIDE_MEAN.get(one.num_tasks), LEAST_BESIDE_LOOP.get(one.num_tasks)
        if aligned is not None and most is not None and "mean" in one.update:
            ratio = aligned / one.update["mean"]
            lines.append(f"- {where}: aligned at most {most} times mean: {_met(ratio <= most)}, {ratio:.2f}.")
        if aligned is not None and least is not None and "aligned" in one.loop:
            ratio = one.loop["aligned"] / aligned
            lines.append(
                f"- {where}: aligned at least {least:.0f} times its loop: {_met(ratio >= least)}, {ratio:.1f}."
            )
    return lines


def table(one: Measured) -> list[str]:
    """Return the lines about one number of tasks."""
    rates = [f"{rate / 1e9:.0f}" for rate in one.rates]
    lines = [
        "",
        f"## {one.num_tasks} tasks",
        "",
        f"Products: {rates[0]} (forward), {rates[1]} (for inputs), {rates[2]} (for weights) GFLOP/s.",
        f"Copies: {rates[3]} GB/s.",
        "",
        "| method | ms | per s | / mean | by steps | / ours | loop | / ours | own passes | / ours | floor | / ours |",
        f"|{'---|' * 12}",
    ]
    mean = one.update.get("mean")
    for method, seconds in one.update.items():
        cells = [
            method,
            f"{1e3 * seconds:.1f}",
            f"{1 / seconds:.2f}",
            "" if mean is None else f"{seconds / mean:.2f}",
            *_beside(one.by_steps.get(method), seconds),
            *_beside(one.loop.get(method), seconds),
            *_beside(one.own_passes.get(method), seconds),
            f"{1e3 * one.floor[method]:.1f}",
            f"{one.floor[method] / seconds:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if one.rounded:
        lines += ["", f"| method | by steps, ms with products in {one.precision} | / float32 |", "|---|---|---|"]
    for method, seconds in one.rounded.items():
        lines.append(f"| {method} | {1e3 * seconds:.1f} | {seconds / one.by_steps[method]:.2f} |")
    for method, operations in one.dearest.items():
        shares = ", ".join(f"{name.removeprefix('aten::')} {share:.1%}" for name, share in operations)
        lines += ["", f"Where {method}'s time goes (profiler, time of the operation itself): {shares}."]
    return lines


def _beside(seconds: float | None, ours: float) -> tuple[str, str]:
    return ("", "") if seconds is None else (f"{1e3 * seconds:.1f}", f"{seconds / ours:.2f}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


if __name__ == "__main__":
    main()
