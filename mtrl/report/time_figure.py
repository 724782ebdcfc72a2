"""The figure of the time: what it went into, and how many steps a second took place."""

import numpy as np

from mtrl.report import frame
from mtrl.report.frame import Drawn, Missing
from mtrl.report.methods import Comparison
from mtrl.report.runs import Run, series

_SECTIONS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")
"""Paul Tol's muted palette: no colour of a method."""


def draw(comparison: Comparison) -> Drawn | Missing:
    """Draw what the time went into, and how many steps a second took place."""
    title = "Time"
    budgets = [seconds_by_section(method.runs) for method in comparison.methods]
    sections = sorted(
        {name for budget in budgets for name in budget}, key=lambda name: -sum(b.get(name, 0) for b in budgets)
    )
    if not sections:
        return Missing(title, "no run has a record of its time yet")
    figure = frame.new(comparison, max(3.2, 1.2 + 0.26 * len(budgets)), has_legend=True)
    left, right = figure.subplots(1, 2)
    start = np.zeros(len(budgets))
    totals = np.array([sum(budget.values()) or np.nan for budget in budgets])
    for index, section in enumerate(sections):
        width = np.array([budget.get(section, 0.0) for budget in budgets]) / totals
        colour = _SECTIONS[index % len(_SECTIONS)]
        left.barh(range(len(budgets)), width, left=start, label=section, color=colour, zorder=2)
        start += width
    left.set_yticks(range(len(budgets)), [method.label for method in comparison.methods])
    left.set(ylim=(len(budgets) - 0.4, -0.6), xlim=(0, 1), xlabel="share of the time")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=7.5, columnspacing=1, handlelength=1)
    for index, method in enumerate(comparison.methods):
        found = series(method.runs, "train", ["speed/env_steps_per_second"])
        if found is not None:
            own = found.values[0]
            frame.curve(right, found.steps, own.mean(0), *frame.spread(comparison, own), index)
    right.set(yscale="log", title="environment steps per second", ylabel="steps/s")
    frame.steps_axis(right)
    caption = (
        "Left: where the time of all runs of a method went. Right: environment steps per second between records, mean "
        f"over runs{frame.band_text(comparison)}. Random steps before learning are faster."
    )
    return Drawn("time", title, caption, figure)


def seconds_by_section(runs: tuple[Run, ...]) -> dict[str, float]:
    """Return the seconds of each section of the time, over all records of training of the runs.

    Shares and speed of a record are those since the one before, so that the steps between them tell the seconds.
    """
    seconds: dict[str, float] = {}
    for run in runs:
        last = 0
        for record in run.records["train"]:
            speed = record.get("speed/env_steps_per_second")
            took = (record["step"] - last) / speed if speed else 0.0
            last = record["step"]
            for name, share in record.items():
                if name.startswith("time_share/") and share is not None:
                    section = name.removeprefix("time_share/")
                    seconds[section] = seconds.get(section, 0.0) + share * took
    return seconds
