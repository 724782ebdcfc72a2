"""What does an aggregator cost, beside the task gradients that it combines and beside torchjd's?

For every method, number of tasks and size of network, on the task gradients of one critic update (twin critics, three
layers, 128 transitions per task, random data), times apart what an update pays on top of them:
    Gramian      inner products of the gradients, accumulated in float64
    weights      the method itself, on the Gramian (methods that see the gradients: on those, with their combination)
    combination  the weighted sum of the gradients
and in the same turns the task gradients themselves (the engine's vmap, one backward pass of the mapped loss) and
torchjd's aggregator on the same Jacobian, in float64, where its Gramian is as exact as ours, and in float32. The
variants take turns, so that a change of the machine's speed hits all alike; the tables show medians and ratios.

    python -m scripts.bench_aggregators --output results/aggregators.md

takes about five minutes on one core. torchjd is part of the extra `test`; its CAGrad, Nash-MTL, UPGrad and DualProj
need packages of their own (pip install "torchjd[full]"), and are left out without them.
"""

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchjd.aggregation as jd
from torch import Tensor

from mtrl.aggregators import make, names
from mtrl.aggregators.base import Need
from mtrl.aggregators.system import GradientSystem, Rows, combine, gramian
from mtrl.gradients import task_gradients
from mtrl.memory import keep_freed_memory
from mtrl.networks.mlp import MLP
from mtrl.run_directory import describe_environment
from scripts.bench_gradients import make_agent, random_inputs, time_in_turns

SIZES = {"0.35M": 280, "3M": 855}
"""Parameters of the twin critics -> width of their three hidden layers; the tasks' one-hot inputs come on top."""

TORCHJD: dict[str, tuple[Callable[[int], Callable[[Tensor], Tensor]], tuple[str, ...]]] = {
    "aligned": (lambda _: jd.AlignedMTL(), ()),
    "cagrad": (lambda _: jd.CAGrad(c=0.9), ("cvxpy", "clarabel")),
    "config": (lambda _: jd.ConFIG(), ()),
    "dualproj": (lambda _: jd.DualProj(), ("qpsolvers", "quadprog")),
    "fairgrad": (lambda _: jd.FairGrad(alpha=2.0), ("scipy",)),
    "graddrop": (lambda _: jd.GradDrop(), ()),
    "gradvac": (lambda _: jd.GradVac(), ()),
    "imtl_g": (lambda _: jd.IMTLG(), ()),
    "mean": (lambda _: jd.Mean(), ()),
    "mgda": (lambda _: jd.MGDA(), ()),
    "nash": (lambda num_tasks: jd.NashMTL(n_tasks=num_tasks), ("cvxpy", "ecos")),
    "pcgrad": (lambda _: jd.PCGrad(), ()),
    "rlw": (lambda _: jd.Random(), ()),
    "sum": (lambda _: jd.Sum(), ()),
    "upgrad": (lambda _: jd.UPGrad(), ("qpsolvers", "quadprog")),
}
"""Method -> from the number of tasks to torchjd's, and the packages that it needs."""

SHARES = {10: 0.30, 50: 0.75}
"""Number of tasks -> what a method may take of the task gradients' time, at 0.35M parameters."""
MOST_MEMORY = 1.2
"""Peak of Gramian and combination in Jacobians, that one included; the direction is 1 / T of one."""
MANY_ELEMENTS, MOST_ROUNDS_OF_MANY = 1e8, 3
"""Elements of a Jacobian above which fewer rounds must do."""

PEAK = """
import sys, torch
from mtrl.aggregators.system import combine, gramian

def read(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

num_tasks, shapes = int(sys.argv[1]), eval(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
combine((torch.ones(num_tasks, 9),), gramian((torch.ones(num_tasks, 9),))[0])  # libraries load
before = read("VmRSS")
rows = tuple(torch.ones(num_tasks, *shape) for shape in shapes)
direction = combine(rows, gramian(rows)[0])
print((read("VmHWM") - before) / sum(leaf.nbytes for leaf in rows))
"""


class Times(NamedTuple):
    """Median seconds of one method."""

    need: Need
    weights: float
    combination: float
    torchjd: float | None
    """On a float64 Jacobian, all of it; None where torchjd has no such method."""
    torchjd_float32: float | None


class Measured(NamedTuple):
    """What one number of tasks and size of network took; times are median seconds."""

    num_tasks: int
    size: str
    num_params: int
    per_task: float
    gramian: float
    plain_gramian: float
    """In float32, leaf @ leaf.T per leaf."""
    conversion: float
    """Of the Jacobian to float64, which torchjd needs for a Gramian like ours."""
    peak: float | None
    """Memory of Gramian and combination, in Jacobians; None where the system does not tell."""
    methods: dict[str, Times]

    def total(self, method: str) -> float:
        """Return what the method takes on top of the task gradients."""
        times = self.methods[method]
        needs_gramian = times.need in (Need.GRAMIAN, Need.LOOKAHEAD)
        return (self.gramian if needs_gramian else 0.0) + times.weights + times.combination


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 10, 50])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=names(), default=list(names()), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=7, help="three at most where a Jacobian has 1e8 elements")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    parser.add_argument("--note", help="a sentence about the machine, for the head of the report")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    lines = head(args.threads, args.note)
    found = []
    for size in args.sizes:
        for num_tasks in args.tasks:
            found.append(measure(num_tasks, size, args.methods, args.rounds))
            print(f"measured: {num_tasks} tasks, {size}", file=sys.stderr)
    lines += ["## Targets", "", *summary(found)]
    for one in found:
        lines += table(one)
    text = "\n".join(lines) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)


# --------------------------------------------------------------------------------------------------------- measuring


def measure(num_tasks: int, size: str, methods: list[str], rounds: int) -> Measured:
    """Time all methods on the gradients of one update, in turns."""
    network = partial(MLP, MLP.Config(hidden_dims=(SIZES[size],) * 3))
    agent = make_agent(num_tasks, network, torch.device("cpu"))
    inputs = random_inputs(num_tasks, "cpu")
    shared, private = agent.critic.shared, agent.critic.private
    per_task = partial(task_gradients, agent._critic_loss, shared, private, inputs)  # noqa: SLF001 - as training does
    gradients = per_task()
    rows: Rows = tuple(leaf.detach() for leaf in gradients.shared.values())
    num_params = sum(leaf[0].numel() for leaf in rows)
    if num_tasks * num_params > MANY_ELEMENTS:
        rounds = min(rounds, MOST_ROUNDS_OF_MANY)
    system = GradientSystem(
        num_tasks=num_tasks,
        losses=gradients.losses.detach(),
        gramian=gramian(rows),
        rows=rows,
        generator=torch.Generator().manual_seed(0),
    )
    del gradients
    jacobian = torch.cat([leaf.flatten(1) for leaf in rows], dim=1)
    jacobians = (jacobian.double(), jacobian)
    variants: dict[Any, Callable[[], object]] = {
        "per task": per_task,
        "gramian": partial(gramian, rows),
        "plain gramian": partial(plain_gramian, rows),
        "conversion": jacobian.double,
    }
    for method in methods:
        variants |= {(method, part): variant for part, variant in parts(method, system, rows, jacobians).items()}
    seconds = dict(zip(variants, time_in_turns(list(variants.values()), rounds, "cpu"), strict=True))
    return Measured(
        num_tasks=num_tasks,
        size=size,
        num_params=num_params,
        per_task=seconds["per task"],
        gramian=seconds["gramian"],
        plain_gramian=seconds["plain gramian"],
        conversion=seconds["conversion"],
        peak=peak(num_tasks, [tuple(leaf.shape[1:]) for leaf in rows]),
        methods={
            method: Times(
                make(method).need,
                seconds[method, "weights"],
                seconds.get((method, "combination"), 0.0),
                seconds.get((method, "torchjd")),
                seconds.get((method, "torchjd, float32")),
            )
            for method in methods
        },
    )


def parts(
    method: str, system: GradientSystem, rows: Rows, jacobians: tuple[Tensor, Tensor]
) -> dict[str, Callable[[], object]]:
    """Return what is timed of one method."""
    aggregator = make(method)
    aggregator.setup(system.num_tasks, [leaf.shape[1:] for leaf in rows], torch.device("cpu"))
    found: dict[str, Callable[[], object]] = {"weights": partial(aggregator.aggregate, system)}
    if aggregator.need != Need.ROWS:
        weights = torch.full((system.num_tasks,), 1 / system.num_tasks, dtype=torch.float64)
        found["combination"] = partial(combine, rows, weights)
    make_other, packages = TORCHJD.get(method, (None, ()))
    if make_other is not None and all(importlib.util.find_spec(package) for package in packages):
        other = make_other(system.num_tasks)
        for name, jacobian in zip(("torchjd", "torchjd, float32"), jacobians, strict=True):
            found[name] = partial(other, jacobian)
    return found


def plain_gramian(rows: Rows) -> Tensor:
    """Compute the Gramian in the precision of the rows."""
    return torch.stack([leaf.flatten(1) @ leaf.flatten(1).T for leaf in rows]).sum(0)


def peak(num_tasks: int, shapes: list[tuple[int, ...]]) -> float | None:
    """Return the peak memory of a fresh process with a Jacobian, its Gramian and a combination, in Jacobians."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-c", PEAK, str(num_tasks), repr(shapes), str(torch.get_num_threads())]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# ----------------------------------------------------------------------------------------------------------- writing


def head(threads: int, note: str | None) -> list[str]:
    """Return the title and where the numbers come from."""
    about: dict[str, Any] = describe_environment()
    packages = ("torchjd", "cvxpy", "clarabel", "ecos", "quadprog", "scipy")
    versions = about["versions"] | {name: _version(name) for name in packages}
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy", *packages))
    return [
        "# What the aggregators cost",
        "",
        f"`python -m scripts.bench_aggregators {' '.join(sys.argv[1:])}`, {str(about['time'])[:10]},",
        f"commit {about['commit']}; {about['cpu']}, {threads} thread(s); {named}.",
        *([note] if note else []),
        "",
        "All times are medians in ms, of variants that took turns. *Total* is Gramian (where the method sees one),",
        "weights and combination: what an update pays on top of its task gradients; *share* is relative to those.",
        "Methods that see losses only, in training, need neither task gradients nor combination. GradDrop, MoCo and",
        "DB-MTL combine by themselves. *torchjd* is its aggregator on the Jacobian as one matrix of float64, where its",
        "Gramian is as exact as ours; the matrix lies ready, neither its concatenation nor its conversion is counted.",
        "",
    ]


def summary(found: list[Measured]) -> list[str]:
    """Return the targets and what became of them."""
    lines = []
    for one in found:
        where = f"{one.num_tasks} tasks, {one.size}"
        worst = max(one.methods, key=one.total)
        share = one.total(worst) / one.per_task
        if one.size == "0.35M" and one.num_tasks in SHARES:
            target = SHARES[one.num_tasks]
            lines.append(f"- {where}: share below {target:.0%}: {_met(share < target)}, at most {share:.1%} ({worst}).")
        slower = [
            f"{method} {one.total(method) / times.torchjd:.2f}"
            for method, times in one.methods.items()
            if times.torchjd is not None and one.total(method) > times.torchjd
        ]
        compared = sum(times.torchjd is not None for times in one.methods.values())
        rest = f" of {compared}; slower: {', '.join(slower)} times" if slower else f" of {compared}"
        lines.append(f"- {where}: not slower than torchjd: {_met(not slower)}, {compared - len(slower)}{rest}.")
        least = 1 + 1 / one.num_tasks
        if one.peak is not None and least < MOST_MEMORY:
            lines.append(
                f"- {where}: peak memory of Gramian and combination below {MOST_MEMORY} Jacobians: "
                f"{_met(one.peak < MOST_MEMORY)}, {one.peak:.2f} (Jacobian and direction alone: {least:.2f})."
            )
        lines.append(
            f"- {where}: the float64 Gramian takes {one.gramian / one.plain_gramian:.1f} times a float32 one, "
            f"{(one.gramian - one.plain_gramian) / one.per_task:.1%} of the task gradients more."
        )
    return lines


def table(one: Measured) -> list[str]:
    """Return the lines about one number of tasks and size of network."""
    lines = [
        "",
        f"## {one.num_tasks} tasks, {one.num_params:,} parameters",
        "",
        f"Task gradients {_ms(one.per_task)} ms, Gramian {_ms(one.gramian)} (in float32 {_ms(one.plain_gramian)}),",
        f"conversion of the Jacobian to float64 {_ms(one.conversion)}.",
        "",
        "| method | weights | combination | total | share | torchjd | ours / torchjd | torchjd, float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, times in one.methods.items():
        total = one.total(method)
        ratio = "" if times.torchjd is None else f"{total / times.torchjd:.2f}"
        cells = [
            method,
            _ms(times.weights),
            _ms(times.combination),
            _ms(total),
            f"{total / one.per_task:.1%}",
            _ms(times.torchjd),
            ratio,
            _ms(times.torchjd_float32),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.2f}"


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(absent)"


if __name__ == "__main__":
    main()
