"""Figures of the gradients: cosines, conflicts, condition numbers, aggregator weights, transference."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mtrl.report import frame
from mtrl.report.frame import Drawn, Missing
from mtrl.report.methods import Comparison
from mtrl.report.runs import Run, Series, per_task, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("critic", "actor")

_MOST_MATRICES = 8
"""Methods whose matrices are drawn."""

_SMALLEST_FONT = 4.5
"""Points; where names would be smaller, tasks are numbered."""

_MOST_LARGE_NAMES = 12
"""Tasks whose names need not be small."""


def draw(comparison: Comparison) -> list[Drawn | Missing]:
    """Draw all figures of gradients, in the order of the page."""
    return [
        cosines(comparison),
        conflicts(comparison),
        condition_numbers(comparison),
        similarities(comparison),
        weights(comparison),
        transference(comparison),
    ]


def cosines(comparison: Comparison) -> Drawn | Missing:
    """Draw the cosines between the gradients of tasks."""
    caption = (
        "Cosine between the gradients of two tasks, mean over runs and over the records of the second half of training."
    )
    return _matrices(comparison, "cosine", "Gradient cosines", caption, lambda values: 1.0)


def transference(comparison: Comparison) -> Drawn | Missing:
    """Draw how much a step on one task helps another."""
    caption = (
        "Share by which a step on the task of the row alone lowers the loss of the task of the column, mean over runs "
        "and over the records of the second half of training; red helps, blue harms. Each matrix has its largest entry "
        "off the diagonal, named above it, in full colour."
    )
    return _matrices(comparison, "transference", "Transference", caption, _largest_between)


def conflicts(comparison: Comparison) -> Drawn | Missing:
    """Draw the share of task pairs whose gradients point apart."""

    def line(axes: "Axes", part: str, runs: tuple[Run, ...], index: int) -> bool:
        found = series(runs, "train", [f"conflict_share/{part}"])
        if found is not None:
            own = found.values[0]
            frame.curve(axes, found.steps, own.mean(0), *frame.spread(comparison, own), index)
        return found is not None

    band = frame.band_text(comparison)
    caption = f"Share of task pairs whose gradients have a negative cosine, mean over runs{band}."
    return _two_panels(comparison, "conflicts", "Conflicts", caption, line, ylim=(-0.03, 1.03), ylabel="share of pairs")


def condition_numbers(comparison: Comparison) -> Drawn | Missing:
    """Draw the condition number of the gradient system before and after aggregation."""
    caption = f"Condition number of the tasks' gradients, {_BEFORE_AND_AFTER} Gaps: not finite."
    line = _before_and_after("condition_number")
    return _two_panels(
        comparison, "condition", "Condition number", caption, line, yscale="log", ylabel="condition number"
    )


def similarities(comparison: Comparison) -> Drawn | Missing:
    """Draw how equally long the gradients are before and after aggregation."""
    caption = (
        "2 n m / (n^2 + m^2) of the lengths n and m of two tasks' gradients, mean over pairs: 1 where all are equally "
        f"long; {_BEFORE_AND_AFTER}"
    )
    line = _before_and_after("magnitude_similarity")
    return _two_panels(
        comparison, "similarity", "Magnitude similarity", caption, line, ylim=(-0.03, 1.03), ylabel="similarity"
    )


_BEFORE_AND_AFTER = (
    "median over runs: lines before aggregation, thin ones with dots after it, where the method mixes gradients by a "
    "matrix."
)


def _before_and_after(name: str) -> Callable[..., bool]:
    """Return what draws one method's line of a number, and that of the same number after aggregation."""

    def line(axes: "Axes", part: str, runs: tuple[Run, ...], index: int) -> bool:
        before = series(runs, "train", [f"{name}/{part}"])
        after = series(runs, "train", [f"{name}_after/{part}"])
        if before is not None:
            axes.plot(before.steps, np.median(before.values[0], axis=0), **frame.line_style(index))
        if after is not None:
            middle = np.median(after.values[0], axis=0)
            axes.plot(after.steps, middle, **frame.line_style(index), linewidth=0.7, marker=".", markersize=3)
        return before is not None

    return line


def weights(comparison: Comparison) -> Drawn | Missing:
    """Draw the weight of every task over training."""
    title = "Aggregator weights"
    found = [
        (method, part, recorded)
        for method in comparison.methods[:_MOST_MATRICES]
        for part in PARTS
        if (recorded := per_task(method.runs, "train", f"{part}_weight")) is not None
    ]
    if not found:
        return Missing(title, "no run has recorded weights: its methods have none, or it has not begun to learn")
    num_tasks = len(comparison.tasks)
    rows = math.ceil(len(found) / 2)
    figure = frame.new(comparison, rows * (0.75 + max(0.8, 0.14 * num_tasks)), has_legend=False)
    panels = frame.grid_of(figure, len(found), 2)
    pictures = []
    for panel, (method, part, recorded) in zip(panels, found, strict=True):
        shares = _shares(recorded)
        pictures.append(frame.image(panel, shares, "viridis", 0.0, 3.0))
        pictures[-1].set_extent((*_edges(recorded.steps), num_tasks - 0.5, -0.5))
        panel.set_title(f"{method.label}: {part}")
        panel.set_yticks(range(num_tasks), comparison.short_tasks, fontsize=7 if num_tasks <= _MOST_LARGE_NAMES else 6)
        frame.steps_axis(panel)
        panel.label_outer()
    figure.colorbar(pictures[0], ax=panels, label="weight / mean weight", fraction=0.02, pad=0.01, extend="max")
    caption = (
        "Size of each task's weight divided by the mean over tasks, mean over runs: 1 is an equal share; all above 3 "
        f"is drawn alike.{_first(comparison)}"
    )
    return Drawn("weights", title, caption, figure)


def _matrices(
    comparison: Comparison, name: str, title: str, caption: str, limit: Callable[[np.ndarray], float]
) -> Drawn | Missing:
    found = {
        (column, part): recorded
        for column, method in enumerate(comparison.methods[:_MOST_MATRICES])
        for part in PARTS
        if (recorded := series(method.runs, "train", [f"{part}_{name}"])) is not None
    }
    if not found:
        return Missing(title, f"no run has recorded {PARTS[0]}_{name} yet")
    methods = [method.label for method in comparison.methods]
    shown = sorted({column for column, _ in found})
    per_row = 2 * min(2, len(shown))  # critic and actor of a method stand side by side
    rows = math.ceil(2 * len(shown) / per_row)
    num_tasks = len(comparison.tasks)
    side = (frame.WIDTH - 2) / per_row
    font = min(7.0, 0.85 * 72 * side / num_tasks)  # a line of text per row
    has_names = font >= _SMALLEST_FONT
    figure = frame.new(comparison, rows * (side + 0.3) + (0.9 if has_names else 0.2), has_legend=False)
    panels = frame.grid_of(figure, 2 * len(shown), per_row)
    pictures = []
    for place, panel in enumerate(panels):
        column, part = shown[place // 2], PARTS[place % 2]
        if (column, part) not in found:
            panel.set_axis_off()
            continue
        values = _late_mean(found[column, part])
        bound = limit(values)
        pictures.append(frame.image(panel, values / bound, "RdBu_r", -1.0, 1.0))
        panel.set_aspect("equal")
        panel.set_title(f"{methods[column]}: {part}{'' if bound == 1 else f' (±{bound:.2g})'}", fontsize=8)
        if has_names:
            panel.set_yticks(range(num_tasks), comparison.short_tasks, fontsize=font)
            panel.set_xticks(range(num_tasks), comparison.short_tasks, fontsize=font, rotation=90)
    label = "cosine" if name == "cosine" else "of full colour"
    figure.colorbar(pictures[0], ax=panels, label=label, fraction=0.02, pad=0.01)
    names = "" if has_names else " Tasks are numbered from 0 in the order of the heat map of tasks."
    return Drawn(name, title, f"{caption}{names}{_first(comparison)}", figure)


def _two_panels(
    comparison: Comparison,
    name: str,
    title: str,
    caption: str,
    line: Callable[..., bool],
    **options: object,
) -> Drawn | Missing:
    """Draw the methods' lines for critic and actor, side by side."""
    figure = frame.new(comparison, 3.2, has_legend=True)
    panels = frame.grid_of(figure, 2, 2)
    drawn = [
        line(panel, part, method.runs, index)
        for part, panel in zip(PARTS, panels, strict=True)
        for index, method in enumerate(comparison.methods)
    ]
    if not any(drawn):
        return Missing(title, "no run has recorded it")
    ylabel = options.pop("ylabel")
    for part, panel in zip(PARTS, panels, strict=True):
        panel.set(title=part, **options)
        frame.steps_axis(panel)
    panels[0].set_ylabel(str(ylabel))
    return Drawn(name, title, caption, figure)


def _late_mean(recorded: Series) -> np.ndarray:
    """Return the mean over runs and the second half of the steps, of the numbers there are."""
    values = recorded.values[0][:, len(recorded.steps) // 2 :]
    return _nan_mean(values.reshape(-1, *values.shape[2:]))


def _shares(recorded: Series) -> np.ndarray:
    """Return the size of weights over the mean over tasks, mean over runs: (task, step)."""
    sizes = np.abs(recorded.values)
    means = sizes.mean(0, keepdims=True)
    return _nan_mean(np.divide(sizes, means, out=np.full_like(sizes, np.nan), where=means > 0).swapaxes(0, 1))


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean on axis 0 of what is a number, NaN where nothing is."""
    is_number = np.isfinite(values)
    counts = is_number.sum(0)
    sums = np.where(is_number, values, 0).sum(0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _largest_between(values: np.ndarray) -> float:
    """Return the largest size of an entry that is not on the diagonal."""
    between = np.abs(values[~np.eye(len(values), dtype=bool)])
    between = between[np.isfinite(between)]
    return float(between.max()) if between.any() else 1.0


def _edges(steps: np.ndarray) -> tuple[float, float]:
    """Return where the picture of these steps begins and ends: half a distance around them."""
    half = (steps[-1] - steps[0]) / max(1, len(steps) - 1) / 2 or 0.5
    return float(steps[0] - half), float(steps[-1] + half)


def _first(comparison: Comparison) -> str:
    more = len(comparison.methods) > _MOST_MATRICES
    return f" The first {_MOST_MATRICES} methods are drawn." if more else ""
