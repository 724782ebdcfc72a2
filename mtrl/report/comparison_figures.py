"""Figures of methods against each other: per task, per goal, performance profile, probability of improvement."""

import math
from functools import partial

import numpy as np

from mtrl.report import frame
from mtrl.report.frame import Drawn, Missing
from mtrl.report.methods import Comparison
from mtrl.report.runs import goal_success
from mtrl.report.success_figures import NO_EVALUATION, evaluated
from mtrl.statistics import performance_profile, probability_of_improvement, run_bootstrap

Pairs = dict[tuple[int, int], tuple[float, float, float]]
"""By the places of methods X and Y: probability that X is better, and the ends of its interval."""

_RESAMPLES = 1000
"""Of the interval of one pair; there are many."""

_ONE_METHOD = "one method only; name runs of two or more"

_NO_SHARED_STEP = "there is no step at which every run was evaluated"

_MOST_MATRIX, _MOST_INTERVALS = 12, 6
"""Methods in a matrix of pairs with numbers, and with intervals."""

_MOST_COLUMNS = 24
"""Methods in a table of tasks with numbers."""


def draw(comparison: Comparison, pairs: Pairs) -> list[Drawn | Missing]:
    """Draw all figures of this module, in the order of the page."""
    return [tasks_by_methods(comparison), per_goal(comparison), profile(comparison), improvement(comparison, pairs)]


def improvements(comparison: Comparison) -> Pairs:
    """Return probability and interval for every ordered pair of methods; none where they cannot be compared."""
    if _not_comparable(comparison):
        return {}
    methods = evaluated(comparison)
    step = comparison.steps[-1]
    pairs: Pairs = {}
    for place, (x, better) in enumerate(methods):
        for y, other in methods[:place]:
            scores = (better.success_at(step), other.success_at(step))
            value = float(probability_of_improvement(*scores))
            interval = run_bootstrap(probability_of_improvement, *scores, resamples=_RESAMPLES)
            low, high = map(float, interval)
            pairs[x, y], pairs[y, x] = (value, low, high), (1 - value, 1 - high, 1 - low)
    return pairs


def tasks_by_methods(comparison: Comparison) -> Drawn | Missing:
    """Draw the last success as a heat map of tasks and methods."""
    title = "Tasks x methods"
    methods = evaluated(comparison)
    if not methods:
        return Missing(title, NO_EVALUATION)
    steps = [comparison.steps[-1] if comparison.steps else int(method.success.steps[-1]) for _, method in methods]  # pyright: ignore[reportOptionalMemberAccess]
    values = np.stack(
        [method.success_at(step).mean(1) for (_, method), step in zip(methods, steps, strict=True)], axis=1
    )
    longest = max(len(method.label) for _, method in methods)
    figure = frame.new(comparison, 0.8 + 0.2 * len(values) + min(2.0, 0.06 * longest), has_legend=False)
    (axes,) = frame.grid_of(figure, 1, 1)
    picture = frame.image(axes, values, "cividis", 0.0, 1.0)
    axes.set_yticks(range(len(values)), comparison.short_tasks)
    is_wide = len(methods) * 0.075 * longest > 0.75 * frame.WIDTH
    axes.set_xticks(
        range(len(methods)),
        [method.label for _, method in methods],
        rotation=60 if is_wide else 0,
        ha="right" if is_wide else "center",
    )
    if len(methods) <= _MOST_COLUMNS:
        texts = np.vectorize(lambda value: f"{value:.2f}")(values)
        frame.write_numbers(axes, values, texts, dark_below=0.5, size=7.0)
    figure.colorbar(picture, ax=axes, label="success", fraction=0.03, pad=0.01)
    at = f"step {steps[0]:,}" if len(set(steps)) == 1 else "each method's last step, which differ"
    return Drawn("tasks_by_methods", title, f"Mean over runs of the evaluation at {at}.", figure)


def per_goal(comparison: Comparison) -> Drawn | Missing:
    """Draw which goals of which task the policies solve."""
    title = "Success per goal"
    found = [
        (method, [grid for run in method.runs if (grid := goal_success(run)) is not None])
        for method in comparison.methods
    ]
    found = [(method, grids) for method, grids in found if grids]
    if not found:
        return Missing(title, "no run has a whole evaluation of its goals; `python -m mtrl.evaluate RUN` writes one")
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    figure = frame.new(comparison, rows * (0.7 + 0.15 * len(comparison.tasks)) + 0.3, has_legend=False)
    panels = frame.grid_of(figure, len(found), columns)
    pictures = []
    for panel, (method, grids) in zip(panels, found, strict=True):
        with np.errstate(invalid="ignore"):
            pictures.append(frame.image(panel, np.mean(grids, axis=0), "cividis", 0.0, 1.0))
        panel.set_title(f"{method.label}, {len(grids)} of {len(method.runs)} runs")
        panel.set_yticks(range(len(comparison.tasks)), comparison.short_tasks, fontsize=7.0)
        panel.set_xlabel("goal")
    figure.colorbar(pictures[0], ax=panels, label="success", fraction=0.02, pad=0.01)
    steps = sorted({run.whole["step"] for run in comparison.runs if run.whole is not None})
    caption = (
        "Every goal of every task once, deterministic policy of the newest checkpoint evaluated (step "
        f"{' and '.join(f'{step:,}' for step in steps[:3])}{' and others' if len(steps) > 3 else ''}): mean over the "
        "runs evaluated."
    )
    return Drawn("goals", title, caption, figure)


def profile(comparison: Comparison) -> Drawn | Missing:
    """Draw the share of task-run pairs above every level of success."""
    title = "Performance profile"
    reason = _not_comparable(comparison)
    if reason:
        return Missing(title, reason)
    figure = frame.new(comparison, 3.2, has_legend=True)
    (axes,) = frame.grid_of(figure, 1, 1)
    thresholds = np.linspace(0, 1, 201)[:-1]
    at = partial(performance_profile, thresholds=thresholds)
    for index, method in evaluated(comparison):
        scores = method.success_at(comparison.steps[-1])
        frame.curve(axes, thresholds, at(scores), *frame.band(comparison, run_bootstrap, at, scores), index)
    axes.set(xlabel="success t", ylabel="share of task-run pairs above t", xlim=(0, 1), ylim=(-0.03, 1.03))
    caption = (
        f"Of all pairs of a task and a run, the share whose success exceeds t, at step {comparison.steps[-1]:,}; band: "
        "95% bootstrap of whole runs. A method whose line is nowhere below another's is as good or better everywhere."
        f"{frame.without_bands(comparison)}"
    )
    return Drawn("profile", title, caption, figure)


def improvement(comparison: Comparison, pairs: Pairs) -> Drawn | Missing:
    """Draw how probable it is that one method's run is better than another's on a random task."""
    title = "Probability of improvement"
    reason = _not_comparable(comparison)
    if reason:
        return Missing(title, reason)
    labels = [method.label for method in comparison.methods]
    size = len(labels)
    values, texts = np.full((size, size), np.nan), np.full((size, size), "", dtype=object)
    for (x, y), (value, low, high) in pairs.items():
        values[x, y] = value
        texts[x, y] = f"{value:.2f}" + (
            f"\n{low:.2f} to {high:.2f}" if np.isfinite(low) and size <= _MOST_INTERVALS else ""
        )
    figure = frame.new(comparison, 1.2 + (0.45 if size <= _MOST_INTERVALS else 0.3) * size, has_legend=False)
    (axes,) = frame.grid_of(figure, 1, 1)
    picture = frame.image(axes, values, "PuOr", 0.0, 1.0)
    if size <= _MOST_MATRIX:
        frame.write_numbers(axes, 0.5 - np.abs(np.nan_to_num(values, nan=0.5) - 0.5), texts, dark_below=0.15, size=7.5)
    axes.set_yticks(range(size), labels)
    axes.set_xticks(
        range(size),
        labels,
        rotation=0 if size * max(map(len, labels)) < 110 else 60,
        ha="center" if size * max(map(len, labels)) < 110 else "right",
    )
    axes.set(ylabel="X", xlabel="Y")
    figure.colorbar(picture, ax=axes, label="P(X > Y)", fraction=0.03, pad=0.01)
    caption = (
        f"Probability that a run of X (row) succeeds more often than a run of Y (column) on a task drawn at random, "
        f"ties half, at step {comparison.steps[-1]:,}, with the 95% bootstrap interval of whole runs. An interval that "
        "holds 0.5 tells nothing; of many pairs one in twenty misses it by chance."
    )
    return Drawn("improvement", title, caption, figure)


def _not_comparable(comparison: Comparison) -> str:
    if len(evaluated(comparison)) < 2:
        return _ONE_METHOD
    return "" if comparison.steps else _NO_SHARED_STEP
