"""What do updates lose when their matrix products are rounded to bfloat16?

Reads trainings that differ in `--matmul-precision` alone, and writes one Markdown file: success, and how far the
direction of an update is off where trained critics stand. The trainings, for every suite and precision:

    python -m mtrl.sweep --env ENV --aggregators mean,aligned --seeds 0:5 --jobs 1 --cpus-per-run 1 --device cpu \
        --threads 1 --eval-goals 50 --matmul-precision PRECISION --sweep-dir DIR/ENV-PRECISION

    python -m scripts.compare_precision --runs DIR --output results/precision.md
"""

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from mtrl import checkpoint, cli
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators.system import condition_number, gramian
from mtrl.assembly import load_agent, read_spec
from mtrl.envs import task_names
from mtrl.gradients import task_gradients
from mtrl.interfaces import Parameters
from mtrl.precision import Precision, products_in
from mtrl.replay import make_replay
from mtrl.seeding import torch_generator
from scripts.gramian_precision import direct
from scripts.training_runs import Run, average, best, last, mean_cell, provenance

ENVS, METHODS = ("toy", "toy_scaled"), ("mean", "aligned")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MEASURED = "toy_scaled-float32"
"""The sweep whose last critics are looked at: badly conditioned ones."""
CONDITIONS = (0, 300, 700, 1400, math.inf)
"""Bounds of the condition numbers in a row; 1000 lies in one, and float32 Gramians end there."""
CPU = torch.device("cpu")

HEAD = """# What products in bfloat16 cost

`--matmul-precision bfloat16`: see `python -m mtrl.train --env toy --help`. TF32 was not measured: no GPU.

## Learning

    python -m mtrl.sweep --env ENV --aggregators {methods} --seeds {comma} --jobs 1 --cpus-per-run 1 --device cpu \\
        --threads 1 --eval-goals 50 --matmul-precision PRECISION --sweep-dir DIR/ENV-PRECISION
    python -m scripts.compare_precision --runs DIR --seeds {seeds} --output results/precision.md

{provenance}
First start {date}; the preset of the environment, 24,000 environment steps; of the seeds
{comma} those whose runs had all ended.

Success: deterministic policy, all 50 goals of every task. *Last* is the evaluation at the end; *best* the highest of
the run's six, which is chosen by its outcome; *average* is over the six, the area under the curve. *Change* is bfloat16
minus float32, seed by seed. In brackets Student's 95% interval of the mean over seeds, cut to where values can lie;
none where all are equal."""

DIRECTIONS = """## The direction of one update

Critics at the end of the runs of `toy_scaled` in float32, on {batches} batches of each run's own replay, by the
condition number of the task gradients. Relative error of the direction that a method makes of them, if forward and
backward pass multiply in float32 or bfloat16, the reference being both in float64; Gramian and weights are in float64
in each. *Other batch* is how far the reference moves from one batch to the next: the noise that learning lives with
anyway. *Gradients*: the largest relative error of a task's gradient in bfloat16. Medians over batches; in brackets the
worst."""


class Errors(NamedTuple):
    """Of the direction that one method makes of one batch."""

    condition: float
    """Condition number of the task gradients."""
    gradients: float
    """Largest relative error of a task's gradient in bfloat16."""
    float32: float
    bfloat16: float
    other_batch: float


def main() -> None:
    """Read the runs and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="where the folders of the sweeps are")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="default: 0 1 2 3 4")
    parser.add_argument("--batches", type=int, default=20, help="of every run (default: 20)")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ended = {env: [seed for seed in args.seeds if has_ended(args.runs, env, seed)] for env in ENVS}
    groups = [(env, precision, method) for env in ENVS for precision in PRECISIONS for method in METHODS]
    all_runs = {group: runs_of(args.runs, *group, ended[group[0]]) for group in groups}
    started = [run for runs in all_runs.values() for run in runs]
    head = HEAD.format(
        methods=",".join(METHODS),
        comma=",".join(map(str, args.seeds)),
        seeds=" ".join(map(str, args.seeds)),
        provenance=provenance(started),
        date=min(str(run.start()["time"]) for run in started)[:10],
    )
    measured = args.runs / MEASURED, ended["toy_scaled"], args.batches
    lines = [head, "", *learning_table(all_runs), "", DIRECTIONS.format(batches=args.batches), ""]
    text = "\n".join([*lines, *direction_table(*measured), "", transference_line(*measured)]) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)


def runs_of(folder: Path, env: str, precision: str, method: str, seeds: Sequence[int]) -> list[Run]:
    """Return the runs of one sweep and method, one per seed."""
    return [Run(folder / f"{env}-{precision}" / f"{method}-{seed}", ()) for seed in seeds]


def has_ended(folder: Path, env: str, seed: int) -> bool:
    """Return whether all runs of a suite and seed are there: they save at their end alone."""
    pairs = [(precision, method) for precision in PRECISIONS for method in METHODS]
    runs = [run for precision, method in pairs for run in runs_of(folder, env, precision, method, [seed])]
    return all(checkpoint.latest(run.directory / "checkpoints") for run in runs)


def learning_table(runs: dict[tuple[str, str, str], list[Run]]) -> list[str]:
    """Return the success of every suite and method in both precisions, and the change."""
    kinds = {"last": last, "best": best, "average": average}
    columns = [f"{kind}, {what}" for kind in kinds for what in (*PRECISIONS, "change")]
    lines = _header("suite", "method", "seeds", *columns)
    for env in ENVS:
        tasks = task_names(env)
        for method in METHODS:
            cells, exact = [], []
            for measure in kinds.values():
                exact, rounded = ([measure(run, tasks) for run in runs[env, kind, method]] for kind in PRECISIONS)
                change = [after - before for before, after in zip(exact, rounded, strict=True)]
                cells += [mean_cell(exact), mean_cell(rounded), mean_cell(change, low=-1.0)]
            lines.append(_row(env, method, str(len(exact)), *cells))
    return lines


def transference_line(sweep: Path, seeds: Sequence[int], num_batches: int) -> str:
    """Return the sentence on transference, at the states that either method has led to."""
    runs = [sweep / f"{method}-{seed}" for method in METHODS for seed in seeds]
    off, moved = zip(*(pair for run in runs for pair in transference_errors(run, num_batches)), strict=True)
    return (
        "The critics' transference (how far one task's step of Adam lowers each loss; what methods that look ahead go "
        f"by):\nbfloat16 changes it by {_spread(off)} of itself, another batch by {_spread(moved)}."
    )


def direction_table(sweep: Path, seeds: Sequence[int], num_batches: int) -> list[str]:
    """Return the errors of both methods' directions by condition number, at states that either method has led to."""
    found = [direction_errors(sweep / f"{method}-{seed}", num_batches) for method in METHODS for seed in seeds]
    pooled = {method: [errors for run in found for errors in run[method]] for method in METHODS}
    columns = [f"{method}: {what}" for method in METHODS for what in (*PRECISIONS, "other batch")]
    lines = _header("condition number", "batches", "gradients", *columns)
    for low, high in itertools.pairwise(CONDITIONS):
        inside = {method: [one for one in pooled[method] if low <= one.condition < high] for method in METHODS}
        exact, *_ = inside.values()
        if not exact:
            continue
        cells = [_spread([one.gradients for one in exact])]
        for errors in inside.values():
            cells += [_spread(values) for values in list(zip(*errors, strict=True))[2:]]
        lines.append(_row(f"{low} to {high}" if high < math.inf else f"above {low}", str(len(exact)), *cells))
    return lines


def direction_errors(run_dir: Path, num_batches: int) -> dict[str, list[Errors]]:
    """Return for every method how far its direction is off where the critics of a finished run stand, batch by batch.

    Targets and noise of a batch are drawn once, in float32: what differs is the loss's forward and backward pass.
    """
    agent, batches = _critic_batches(run_dir, num_batches)
    systems = [
        [jacobian(agent, inputs, torch.float64), *(jacobian(agent, inputs, precision) for precision in PRECISIONS)]
        for inputs in batches
    ]
    return {method: _errors(method, systems) for method in METHODS}


def transference_errors(run_dir: Path, num_batches: int) -> list[tuple[float, float]]:
    """Return how far bfloat16 moves the critics' transference, and how far another batch does, batch by batch."""
    agent, batches = _critic_batches(run_dir, num_batches)
    exact, rounded = [], []
    for inputs in batches:
        for precision, found in zip(PRECISIONS, (exact, rounded), strict=True):
            with torch.no_grad(), products_in(precision):
                found.append(agent.critic.transference(agent._critic_loss, inputs, "optimizer"))  # noqa: SLF001 - as training does
    moved = [_distance(exact[index - 1], one) for index, one in enumerate(exact)]
    return list(zip(map(_distance, rounded, exact), moved, strict=True))


def _critic_batches(run_dir: Path, num_batches: int) -> tuple[MTSAC, list[Any]]:
    """Return the agent at the end of a run, and what its critics' losses make of batches of its replay."""
    settings = cli.load(run_dir)
    newest = checkpoint.latest(run_dir / "checkpoints")
    assert newest is not None, f"{run_dir} has not ended"
    agent = cast("MTSAC", load_agent(settings, newest))
    replay = make_replay(settings.replay, read_spec(settings), CPU, settings.trainer.seed)
    replay.load_state_dict(checkpoint.load(newest, "replay"))
    checkpoint.load_rows(newest, replay)
    generator = torch_generator(settings.trainer.seed, "precision")
    with torch.no_grad():
        batches = [replay.sample(settings.agent_config.batch_size) for _ in range(num_batches)]
        return agent, [agent._critic_inputs(batch, generator) for batch in batches]  # noqa: SLF001 - as training does


def jacobian(agent: MTSAC, inputs: Any, precision: Precision | torch.dtype) -> Tensor:
    """Return the gradients of all tasks' critic losses, (task, param); of networks in that type, if it is one."""
    dtype = precision if isinstance(precision, torch.dtype) else torch.float32
    shared, private = (_to(part, dtype) for part in (agent.critic.shared, agent.critic.private))
    inputs = type(inputs)(*(leaf.to(dtype) if leaf.is_floating_point() else leaf for leaf in inputs))
    with products_in("float32" if isinstance(precision, torch.dtype) else precision):
        rows = task_gradients(agent._critic_loss, shared, private, inputs).shared.values()  # noqa: SLF001 - as above
    return torch.cat([leaf.flatten(1) for leaf in rows], dim=1)


def _errors(method: str, systems: Sequence[Sequence[Tensor]]) -> list[Errors]:
    exact = [direct(method, gramian((wide,)), wide) for wide, *_ in systems]
    found = []
    for index, (wide, *others) in enumerate(systems):
        plain, rounded = (_distance(direct(method, gramian((rows,)), rows), exact[index]) for rows in others)
        worst = max(map(_distance, others[1], wide))
        moved = _distance(exact[index - 1], exact[index])
        found.append(Errors(float(condition_number(gramian((wide,)))), worst, plain, rounded, moved))
    return found


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2g} ({max(values):.2g})"


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def _to(part: Parameters, dtype: torch.dtype) -> Parameters:
    return {name: leaf.to(dtype) for name, leaf in part.items()}


def _header(*columns: str) -> list[str]:
    return [_row(*columns), "|---" * len(columns) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
