"""Figures of success during training: of all tasks, of each, of the worst; last, best and area side by side."""

import math

from mtrl.report import frame
from mtrl.report.frame import Drawn, Missing
from mtrl.report.methods import Comparison, Method
from mtrl.report.summary import Summary
from mtrl.statistics import interquartile_mean, mean, run_bootstrap, stratified_bootstrap

NO_EVALUATION = "no run has an evaluation yet; training writes one every --eval-every"

_MOST_LINES = 40
"""Runs drawn each for itself."""


def draw(comparison: Comparison, summaries: list[Summary]) -> list[Drawn | Missing]:
    """Draw all figures of training's evaluations, in the order of the page."""
    return [summary(comparison, summaries), curves(comparison), per_task(comparison), worst_task(comparison)]


def curves(comparison: Comparison) -> Drawn | Missing:
    """Draw mean and interquartile mean over environment steps."""
    title = "Success during training"
    methods = evaluated(comparison)
    if not methods:
        return Missing(title, NO_EVALUATION)
    figure = frame.new(comparison, 3.6, has_legend=True)
    left, right = frame.grid_of(figure, 2, 2)
    for index, method in methods:
        assert method.success is not None
        steps, values = method.success
        if len(comparison.runs) <= _MOST_LINES:
            for run in method.runs:
                own = [(record["step"], record["success/mean"]) for record in run.records["evaluation"]]
                left.plot(*zip(*own, strict=True), **frame.line_style(index), linewidth=0.6, alpha=0.45)
        frame.curve(left, steps, mean(values), *frame.band(comparison, run_bootstrap, mean, values), index)
        band = frame.band(comparison, stratified_bootstrap, interquartile_mean, values)
        frame.curve(right, steps, interquartile_mean(values), *band, index)
    left.set(title="mean over tasks and runs", ylabel="success", ylim=(-0.03, 1.03))
    right.set(title="interquartile mean (IQM) over tasks x runs")
    for axes in (left, right):
        frame.steps_axis(axes)
    caption = (
        "Left: mean over tasks and runs, thin lines are runs; band: 95% bootstrap of whole runs. Right: IQM, the mean "
        "of the middle half of all task-run pairs; band: 95% stratified bootstrap, the runs of each task drawn apart, "
        "which is too narrow where a policy's tasks succeed and fail together. "
        "Lines reach to the last step that all runs of the method share; one run has no band."
        f"{frame.without_bands(comparison)}"
    )
    return Drawn("success", title, caption, figure)


def summary(comparison: Comparison, summaries: list[Summary]) -> Drawn | Missing:
    """Draw last, best and area under the curve side by side."""
    title = "Last, best and area under the curve"
    if not summaries:
        return Missing(title, NO_EVALUATION)
    figure = frame.new(comparison, 0.9 + 0.26 * len(summaries), has_legend=False)
    panels = frame.grid_of(figure, 3, 3)
    places = {method.label: index for index, method in enumerate(comparison.methods)}
    for panel, (name, heading) in zip(
        panels,
        (
            ("last", "last evaluation: the result" if comparison.is_at_end else "at a step before the end"),
            ("best", "best evaluation: chosen afterwards"),
            ("area", "area under the curve"),
        ),
        strict=True,
    ):
        for row, one in enumerate(summaries):
            value, interval = getattr(one, name), getattr(one, f"{name}_interval")
            panel.hlines(
                row, interval.low, interval.high, color=frame.colour(places[one.label]), linewidth=4, alpha=0.35
            )
            panel.plot(value, row, "o", color=frame.colour(places[one.label]), markersize=6)
        panel.set(title=heading, xlim=(-0.03, 1.03), xlabel="success")
    panels[0].set_yticks(range(len(summaries)), [one.label for one in summaries])
    panels[0].set_ylim(len(summaries) - 0.5, -0.5)
    caption = (
        "Mean over tasks and runs, each run with its own best; bars: 95% bootstrap of whole runs. "
        f"{_steps_text(summaries)} The best of many evaluations is above what the policy reaches: compare methods by "
        "the last, or by the area."
    )
    return Drawn("summary", title, caption, figure)


def per_task(comparison: Comparison) -> Drawn | Missing:
    """Draw one small panel per task, all on the same axes."""
    title = "Success per task"
    methods = evaluated(comparison)
    if not methods:
        return Missing(title, NO_EVALUATION)
    num_tasks = len(comparison.tasks)
    columns = min(num_tasks, 5 if num_tasks <= 10 else 7)
    rows = math.ceil(num_tasks / columns)
    figure = frame.new(comparison, rows * (1.55 if columns <= 5 else 1.2) + 0.4, has_legend=True)
    panels = frame.grid_of(figure, num_tasks, columns)
    for task, (panel, name) in enumerate(zip(panels, comparison.short_tasks, strict=True)):
        for index, method in methods:
            assert method.success is not None
            steps, values = method.success
            own = values[task]  # run, step
            frame.curve(panel, steps, own.mean(0), *frame.spread(comparison, own), index)
        panel.set_title(name, fontsize=8.5 if columns <= 5 else 7, pad=3)
        panel.set_ylim(-0.05, 1.05)
        panel.tick_params(labelsize=7)
    for panel in panels[num_tasks - columns :]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
        frame.steps_axis(panel)
        panel.set_xlabel("env. steps", fontsize=7.5)
    for panel in panels[::columns]:
        panel.set_ylabel("success", fontsize=7.5)
    caption = f"Mean over runs{frame.band_text(comparison)}. All panels have the same axes."
    return Drawn("tasks", title, caption, figure)


def worst_task(comparison: Comparison) -> Drawn | Missing:
    """Draw the success of the task that is worst at each evaluation of a run."""
    title = "Worst task"
    methods = evaluated(comparison)
    if not methods:
        return Missing(title, NO_EVALUATION)
    figure = frame.new(comparison, 3.0, has_legend=True)
    (axes,) = frame.grid_of(figure, 1, 1)
    for index, method in methods:
        assert method.success is not None
        steps, values = method.success
        lowest = values.min(0, keepdims=True)
        frame.curve(axes, steps, mean(lowest), *frame.band(comparison, run_bootstrap, mean, lowest), index)
    axes.set(ylabel="success of the worst task", ylim=(-0.03, 1.03))
    frame.steps_axis(axes)
    caption = "The lowest success of any task in each evaluation of a run, mean over runs; band: 95% bootstrap of runs."
    caption += frame.without_bands(comparison)
    return Drawn("worst_task", title, caption, figure)


def evaluated(comparison: Comparison) -> list[tuple[int, Method]]:
    """Return the methods with evaluations, each with its place among all."""
    return [(index, method) for index, method in enumerate(comparison.methods) if method.success is not None]


def _steps_text(summaries: list[Summary]) -> str:
    steps = sorted({one.step for one in summaries})
    return f"All at step {steps[0]:,}." if len(steps) == 1 else "Methods are at different steps: see the table."
