"""How far is a method's direction off if the Gramian is accumulated in float32, and how far with ours?

Jacobians of ten tasks in float32, whose singular values are spread evenly in the logarithm over a condition number. For
every method that sees a Gramian, the relative error of the direction with
    float32   the Gramian as J @ J.T, in the precision of the gradients
    ours      the Gramian accumulated in float64 from the same entries (mtrl.aggregators.system.gramian)
The weights come from the method in float64, and combine the rows in float32, in both. The reference does everything in
float64, on the same entries.

    python -m scripts.gramian_precision --output results/gramian_precision.md

takes about a minute on one core.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtrl.aggregators import make, names
from mtrl.aggregators.base import apply
from mtrl.aggregators.system import GradientSystem, gramian
from mtrl.run_directory import describe_environment

CONDITIONS = (10.0, 100.0, 1e3, 1e4)


def main() -> None:
    """Write one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=345_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = [name for name in names() if make(name).need.has_gramian]
    jacobians = {
        condition: [with_condition_number(args.tasks, args.parameters, condition, seed) for seed in range(args.seeds)]
        for condition in CONDITIONS
    }
    found = {
        method: {condition: [errors(method, jacobian) for jacobian in jacobians[condition]] for condition in CONDITIONS}
        for method in methods
    }
    text = "\n".join(table(found, f"{args.tasks} tasks, {args.parameters:,} parameters, {args.seeds} seeds")) + "\n"
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)


def with_condition_number(num_tasks: int, num_params: int, condition: float, seed: int) -> Tensor:
    """Return a float32 Jacobian with singular values from 1 to 1 / condition and random singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(size, num_tasks, generator=generator, dtype=torch.float64))[0]
        for size in (num_tasks, num_params)
    )
    singular_values = condition ** -torch.linspace(0, 1, num_tasks, dtype=torch.float64)
    return ((left * singular_values) @ right.T).float()


def errors(method: str, jacobian: Tensor) -> tuple[float, float]:
    """Return the relative errors of the direction with the Gramian in float32, and with ours."""
    wide = jacobian.double()
    exact = direct(method, gramian((wide,)), wide)
    plain = direct(method, (jacobian @ jacobian.T).double(), jacobian)
    ours = direct(method, gramian((jacobian,)), jacobian)
    plain_error, our_error = (float((found.double() - exact).norm() / exact.norm()) for found in (plain, ours))
    return plain_error, our_error


def direct(method: str, products: Tensor, jacobian: Tensor) -> Tensor:
    """Return the direction that a fresh object of the method makes of the Gramian and the rows."""
    num_tasks = len(jacobian)
    aggregator = make(method)
    aggregator.setup(num_tasks, [jacobian.shape[1:]], jacobian.device)
    system = GradientSystem(
        num_tasks=num_tasks,
        losses=torch.ones(num_tasks, dtype=torch.float64),
        gramian=(products + products.T) / 2,
        generator=torch.Generator().manual_seed(0),
    )
    (direction,) = apply(aggregator.aggregate(system), (jacobian,))
    return direction


def table(found: dict[str, dict[float, list[tuple[float, float]]]], subject: str) -> list[str]:
    """Return the lines of the report."""
    about: dict[str, Any] = describe_environment()
    versions = about["versions"]
    lines = [
        "# What a float32 Gramian costs in precision",
        "",
        f"`python -m scripts.gramian_precision {' '.join(sys.argv[1:])}`, {str(about['time'])[:10]},",
        f"commit {about['commit']}; {about['cpu']}; python {versions['python']}, torch {versions['torch']}.",
        "",
        f"{subject}, entries in float32, at four condition numbers. Each cell: relative error of the",
        "direction of a fresh object, median (and worst) over the seeds, with the Gramian accumulated in float32, and",
        "with ours, in float64 from the same entries. Reference: everything in float64. What is left of the error",
        "with ours comes from combining the rows in float32. Every method gets the same float64 Gramian;",
        "aggregators.md says what it costs beside a float32 one. GradNorm weighs equally in its first update, whatever",
        "the Gramian.",
        "",
        "| method | " + " | ".join(f"{condition:g}: float32 | ours" for condition in CONDITIONS) + " |",
        "|---" * (1 + 2 * len(CONDITIONS)) + "|",
    ]
    for method, by_condition in found.items():
        cells = [
            f"{statistics.median(values):.0e} ({max(values):.0e})"
            for pairs in by_condition.values()
            for values in zip(*pairs, strict=True)
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
