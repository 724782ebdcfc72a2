"""Last, best and area under the curve, side by side: a maximum over training must never pass for a result."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtrl.report.methods import Comparison, Method
from mtrl.statistics import Band, interquartile_mean, mean, run_bootstrap, stratified_bootstrap


class Summary(NamedTuple):
    """The success of one method."""

    label: str
    num_runs: int
    num_seeds: int
    step: int
    """Of the last evaluation."""
    last: float
    last_interval: Band
    """Of whole runs."""
    iqm: float
    iqm_interval: Band
    """Runs drawn for each task apart."""
    best: float
    """Mean over runs of the highest mean success of any evaluation up to that step."""
    best_interval: Band
    area: float
    """Mean over runs of the area under the curve, divided by its length: the mean success on the way there."""
    area_interval: Band
    worst: float
    """Mean over runs of the lowest task's success at that step."""
    worst_task: str
    """The task with the lowest mean over runs."""


class OfRun(NamedTuple):
    """The mean success of one run."""

    last: float
    best: float
    best_step: int
    area: float


def summarise(comparison: Comparison) -> list[Summary]:
    """Return one summary per method that has an evaluation, at the steps all share where there are any."""
    return [_summary(comparison, method) for method in comparison.methods if method.success is not None]


def of_run(steps: Float[np.ndarray, " step"] | np.ndarray, success: Float[np.ndarray, " step"]) -> OfRun:
    """Return last, best and area of one curve."""
    best = int(success.argmax())
    return OfRun(float(success[-1]), float(success[best]), int(steps[best]), area_under(steps, success))


def area_under(steps: np.ndarray, success: Float[np.ndarray, " step"]) -> float:
    """Return the area from the first step to the last by the trapezoidal rule, divided by their distance."""
    if len(steps) == 1:
        return float(success[0])
    return float(np.trapezoid(success, steps) / (steps[-1] - steps[0]))


def _summary(comparison: Comparison, method: Method) -> Summary:
    assert method.success is not None
    steps, values = method.success
    if comparison.steps:
        shared = np.isin(steps, comparison.steps)
        steps, values = steps[shared], values[..., shared]
    over_tasks = values.mean(0)  # run, step
    each = [of_run(steps, curve) for curve in over_tasks]
    best, area = (np.array([[getattr(one, name) for one in each]]) for name in ("best", "area"))
    scores = values[:, :, -1]
    return Summary(
        label=method.label,
        num_runs=scores.shape[1],
        num_seeds=method.num_seeds,
        step=int(steps[-1]),
        last=float(mean(scores)),
        last_interval=run_bootstrap(mean, scores),
        iqm=float(interquartile_mean(scores)),
        iqm_interval=stratified_bootstrap(interquartile_mean, scores),
        best=float(best.mean()),
        best_interval=run_bootstrap(mean, best),
        area=float(area.mean()),
        area_interval=run_bootstrap(mean, area),
        worst=float(scores.min(0).mean()),
        worst_task=comparison.tasks[int(scores.mean(1).argmin())],
    )
