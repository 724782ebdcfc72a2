"""Walk every method over a landscape of two losses with local traps: `python -m mtrl.landscape`.

Prints where each method ends from five starts, with the losses as they are and with the first one transformed, and
draws the walks. No reinforcement learning, and known end points to compare with. A minute on one core for most methods;
cagrad, dualproj, mgda, sdmgrad and upgrad, which solve a problem for every point, take two to three each.

Source of the problem: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", 2021, as their code and
those of Nash-MTL, FAMO, Aligned-MTL and DiBS-MTL have it (the printed formulas differ in a sign); starts and number of
steps of Nash-MTL and Aligned-MTL; transform of DiBS-MTL.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mtrl import aggregators
from mtrl.aggregators.base import Aggregator, apply
from mtrl.aggregators.system import GradientSystem

STARTS = np.array([(-8.5, 7.5), (0.1, 0.1), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)])
"""The published ones; the second as in DiBS-MTL's code. At the others' (0, 0) both losses are 0 and the transformed one
has no gradient."""

NUM_STEPS, LEARNING_RATE = 35_000, 1e-3

PUBLISHED_RANK_EPS = 1.2e-7
"""Aligned-MTL's tolerance in the published code. It bounds how short aligned gradients become where the two oppose each
other, next to the Pareto front. At our finer default the walks end closer to the optimum and take longer there."""

_SMALLEST = 5e-6
"""Floor of the logarithms' arguments."""

_BETAS, _EPS = (0.9, 0.999), 1e-8
"""Of Adam, torch's defaults."""

_PATH_POINTS = 500
"""Points kept of each walk."""

_EXIT_USAGE = 2

Points = Float[np.ndarray, "walk 2"]
Directions = Callable[[Float[Tensor, "walk task"], Float[Tensor, "walk task 2"]], Float[Tensor, "walk 2"]]


class Method(NamedTuple):
    """A registered method with options."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        """Return the name and what differs from the defaults."""
        return " ".join([self.name, *[f"{key}={value}" for key, value in self.options.items()]])

    def build(self) -> Aggregator:
        """Return it, set up for the two losses."""
        method = aggregators.make(self.name, **self.options)
        method.setup(2, [torch.Size([2])], torch.device("cpu"))
        return method


# ------------------------------------------------------------------------------------------------------- the problem


def losses_and_gradients(points: Points) -> tuple[Float[np.ndarray, "walk task"], Float[np.ndarray, "walk task 2"]]:
    """Compute both losses and their gradients, worked out by hand: ten points are too few to pay for autograd.

    Above x2 = 0 the losses are logarithmic valleys, below it two bowls whose minima are the ends of the Pareto front.
    """
    x1, x2 = points.T
    tanh = np.tanh(x2)
    h = np.stack([-0.5 * (x1 + 7) + tanh, 0.5 * (3 - x1) - tanh + 2])
    slope = 1 - tanh**2
    dh = np.stack([np.full_like(h, -0.5), np.stack([slope, -slope])], axis=-1)
    is_floor = np.abs(h) <= _SMALLEST
    f = np.log(np.maximum(np.abs(h), _SMALLEST)) + 6
    df = dh / np.where(is_floor, np.inf, h)[..., None]
    q = np.stack([((7 - x1) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20, ((x1 + 7) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20])
    dq = np.stack([np.stack([x1 - 7, x1 + 7]) / 5, np.stack([x2 + 8, x2 + 8]) / 50], axis=-1)
    half = np.tanh(x2 / 2)
    above, below = np.maximum(half, 0), np.maximum(-half, 0)
    bend = (1 - half**2) / 2
    losses = f * above + q * below
    gradients = df * above[:, None] + dq * below[:, None]
    side = np.heaviside(half, 0.5)  # where both weights meet, half of either slope, as torch's maximum has it
    gradients[..., 1] += f * bend * side - q * bend * (1 - side)
    return losses.T, gradients.swapaxes(0, 1)


def transform_first(
    losses: Float[np.ndarray, "walk task"],
    gradients: Float[np.ndarray, "walk task 2"],
    is_transformed: Bool[np.ndarray, " walk"],
) -> tuple[Float[np.ndarray, "walk task"], Float[np.ndarray, "walk task 2"]]:
    """Replace L1 by sign(L1) L1^4 in some walks: increasing, so no optimum moves and no trade-off is lost."""
    first = losses[:, 0]
    transformed = np.where(is_transformed, np.sign(first) * first**4, first)
    factor = np.where(is_transformed, 4 * np.abs(first) ** 3, 1.0)
    losses, gradients = losses.copy(), gradients.copy()
    losses[:, 0] = transformed
    gradients[:, 0] *= factor[:, None]
    return losses, gradients


def pareto_front(num_points: int) -> Float[np.ndarray, "point 2"]:
    """Return the minima of s L1 + (1 - s) L2 for s from 0 to 1: x1 = 7 (2 s - 1), x2 found on a grid."""
    x1 = np.linspace(-7, 7, num_points)
    share = (x1 / 7 + 1) / 2
    x2 = np.linspace(-9, -8, 2001)
    grid = np.stack(np.broadcast_arrays(x1[:, None], x2[None, :]), axis=-1).reshape(-1, 2)
    losses = losses_and_gradients(grid)[0].reshape(num_points, len(x2), 2)
    weighted = share[:, None] * losses[..., 0] + (1 - share)[:, None] * losses[..., 1]
    return np.stack([x1, x2[weighted.argmin(1)]], axis=1)


# ---------------------------------------------------------------------------------------------------------- the walks


def walk(
    method: Method,
    starts: Points,
    is_transformed: Bool[np.ndarray, " walk"],
    num_steps: int = NUM_STEPS,
    lr: float = LEARNING_RATE,
) -> Float[np.ndarray, "point walk 2"]:
    """Descend with Adam in float64 from every start; return some points of each walk, the first and the last included.

    Args:
        method: Which combines the two gradients.
        starts: Where to begin.
        is_transformed: In which walks the first loss is transformed.
        num_steps: Steps of each walk.
        lr: Adam's step size.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # of operations without a vmap rule
        directions = _directions(method, len(starts))
        points, path = starts.copy(), [starts.copy()]
        mean, square = np.zeros_like(points), np.zeros_like(points)
        kept = set(np.linspace(0, num_steps, min(num_steps, _PATH_POINTS) + 1).astype(int).tolist())
        for step in range(1, num_steps + 1):
            losses, gradients = transform_first(*losses_and_gradients(points), is_transformed)
            direction = directions(torch.from_numpy(losses), torch.from_numpy(gradients)).numpy()
            mean += (1 - _BETAS[0]) * (direction - mean)
            square += (1 - _BETAS[1]) * (direction**2 - square)
            scale = np.sqrt(square / (1 - _BETAS[1] ** step)) + _EPS
            points = points - lr / (1 - _BETAS[0] ** step) * mean / scale
            if step in kept:
                path.append(points)
    return np.stack(path)


def _directions(method: Method, num_walks: int) -> Directions:
    """Return the rule for all walks at once: mapped over them where the method allows it, else one after the other."""
    generator = torch.Generator().manual_seed(0)
    methods = [method.build() for _ in range(num_walks)]

    def one_by_one(losses: Tensor, rows: Tensor) -> Tensor:
        walks = zip(methods, losses, rows, rows @ rows.mT, strict=True)
        return torch.stack([_direction(own, *seen, generator=generator) for own, *seen in walks])

    def at_once(losses: Tensor, rows: Tensor) -> Tensor:
        rule = partial(_direction, methods[0], generator=generator)
        return torch.vmap(rule, randomness="different")(losses, rows, rows @ rows.mT)

    losses, rows = (torch.from_numpy(found) for found in losses_and_gradients(np.ones((num_walks, 2))))
    tried = copy.deepcopy(methods[0])
    _direction(tried, losses[0], rows[0], rows[0] @ rows[0].mT, generator=generator)
    before, after = methods[0].state_dict(), tried.state_dict()
    if tried.observes or any(not torch.equal(before[name], after[name]) for name in before):
        return one_by_one  # each walk has a state of its own
    try:
        at_once(losses, rows)
    except RuntimeError:  # what vmap raises where a method decides by a tensor's value
        return one_by_one
    return at_once


def _direction(
    method: Aggregator,
    losses: Float[Tensor, " task"],
    rows: Float[Tensor, "task 2"],
    gramian: Float[Tensor, "task task"],
    *,
    generator: torch.Generator,
) -> Float[Tensor, " 2"]:
    """Return the direction at one point, after the method has seen the losses that its last step led to."""
    if method.observes:
        method.observe(losses)
    system = GradientSystem(num_tasks=2, losses=losses, gramian=gramian, rows=(rows,), generator=generator)
    return apply(method.aggregate(system), (rows,))[0]


# ------------------------------------------------------------------------------------------------- table and picture


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mtrl.landscape", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="Adam steps of each walk (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("landscape.png"), help="picture (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib, which comes with the extra 'plots'")
    if arguments.plot.suffix != ".png":
        parser.error(f"--plot: expected a picture such as landscape.png, got {arguments.plot}")
    if arguments.steps < 1:
        parser.error(f"--steps: expected at least 1, got {arguments.steps}")
    torch.set_num_threads(1)
    walks = {}
    try:
        for method in _chosen(arguments.methods or aggregators.names()):
            walks[str(method)] = from_all_starts(method, arguments.steps)
            sys.stdout.write(("" if len(walks) > 1 else _heading()) + _row(str(method), walks[str(method)]))
            sys.stdout.flush()
        draw(walks, arguments.plot)
    except ValueError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return _EXIT_USAGE
    sys.stdout.write(f"drawn in {arguments.plot}\n")
    return 0


def from_all_starts(method: Method, num_steps: int = NUM_STEPS) -> Float[np.ndarray, "point variant start 2"]:
    """Walk from the five starts with the losses as they are (variant 0) and with the first one transformed (1)."""
    is_transformed = np.repeat([False, True], len(STARTS))
    path = walk(method, np.concatenate([STARTS, STARTS]), is_transformed, num_steps)
    return path.reshape(len(path), 2, len(STARTS), 2)


def _chosen(names: Sequence[str]) -> list[Method]:
    """Return the methods by name, Aligned-MTL also with the published rank tolerance and two preferences."""
    methods = [Method(name, {}) for name in names]
    if "aligned" in names:
        place = names.index("aligned") + 1
        published = {"rank_eps": PUBLISHED_RANK_EPS}
        preferences = [published | {"weights": weights} for weights in ((0.3, 0.7), (0.7, 0.3))]
        methods[place:place] = [Method("aligned", options) for options in (published, *preferences)]
    for method in methods:
        method.build()
    return methods


def _heading() -> str:
    starts = "".join(f"{f'from ({x1:g}, {x2:g})':>18}" for x1, x2 in STARTS)
    return f"{'method':<46}{'losses':<12}{starts}\n"


def _row(label: str, path: Float[np.ndarray, "point variant start 2"]) -> str:
    lines = []
    for variant, name in enumerate(("nominal", "transformed")):
        ends = "".join(f"{f'({x1:.2f}, {x2:.2f})':>18}" for x1, x2 in path[-1, variant])
        lines.append(f"{label if variant == 0 else '':<46}{name:<12}{ends}\n")
    return "".join(lines)


def draw(walks: dict[str, Float[np.ndarray, "point variant start 2"]], file: Path) -> None:
    """Draw the walks over the sum of the losses, with the Pareto front; two panels per method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # matplotlib comes with the extra `plots`
    from matplotlib.figure import Figure

    pairs_per_row = min(3, len(walks))
    num_rows = -(-len(walks) // pairs_per_row)
    figure = Figure(figsize=(6 * pairs_per_row, 3 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_rows, 2 * pairs_per_row, squeeze=False, sharex=True, sharey=True)
    x1, x2 = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-10, 10, 201))
    height = losses_and_gradients(np.stack([x1.ravel(), x2.ravel()], axis=1))[0].sum(1).reshape(x1.shape)
    front = pareto_front(101)
    for panel in panels.flat[2 * len(walks) :]:
        panel.set_visible(False)
    for index, (label, path) in enumerate(walks.items()):
        for variant, name in enumerate(("nominal", "transformed")):
            panel = panels.flat[2 * index + variant]
            panel.contour(x1, x2, height, levels=25, cmap="Greys_r", linewidths=0.5)
            panel.plot(*front.T, color="black", linewidth=3, alpha=0.6)
            for start in range(len(STARTS)):
                (line,) = panel.plot(*path[:, variant, start].T, linewidth=1.2)
                panel.plot(*path[0, variant, start], "o", color=line.get_color(), markersize=4)
                panel.plot(*path[-1, variant, start], "*", color=line.get_color(), markersize=9)
            panel.set_title(f"{label}\n{name}", fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
