"""The report as one HTML page that needs nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

import numpy as np

from mtrl.report import provenance, tables
from mtrl.report.frame import Drawn, Missing, to_svg
from mtrl.report.methods import Comparison
from mtrl.report.summary import Summary
from mtrl.statistics import Band

MARK = '<meta name="generator" content="mtrl.report">'

_MOST_IN_TITLE = 4
"""Methods named in the title."""

_COMMIT_DIGITS = 10


def build(
    comparison: Comparison, summaries: Sequence[Summary], figures: Sequence[Drawn | Missing], csv_names: Sequence[str]
) -> str:
    """Return the page.

    Args:
        comparison: What is reported.
        summaries: One per method that has an evaluation.
        figures: In their order; what is missing is told at the end.
        csv_names: Names of the tables that lie beside the page.
    """
    drawn = [one for one in figures if isinstance(one, Drawn)]
    missing = [one for one in figures if isinstance(one, Missing)]
    source = provenance.lines(comparison.runs)
    env = comparison.runs[0].config["env"]
    count = len(comparison.runs)
    labels = [method.label for method in comparison.methods]
    title = f"{env}: {', '.join(labels[:_MOST_IN_TITLE])}{' ...' if len(labels) > _MOST_IN_TITLE else ''}"
    counts = ", ".join([_count(count, "run"), _count(len(labels), "method"), _count(len(comparison.tasks), "task")])
    links = "".join(f'<a href="#{one.name}">{escape(one.title)}</a>' for one in drawn)
    sections = "".join(_figure(one, source) for one in drawn)
    style = resources.files("mtrl.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{MARK}
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="soft">{counts}</p>
{_warnings(comparison)}
<nav><a href="#numbers">Results</a>{links}<a href="#runs">Runs</a></nav>
<h2 id="numbers">Results</h2>
{_summary_table(summaries, is_at_end=comparison.is_at_end)}
{sections}
{_missing(missing)}
<h2 id="runs">Runs</h2>
<p class="soft">Each at its own last evaluation, mean over tasks.</p>
{_run_table(comparison)}
<h2>Tables</h2>
<p>Beside this page: {", ".join(f'<a href="{name}">{name}</a>' for name in csv_names)}.</p>
</body>
</html>
"""


def _warnings(comparison: Comparison) -> str:
    few = f'<p class="warning">{escape(comparison.few_seeds)}</p>' if comparison.few_seeds else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return few + (f"<ul>{notes}</ul>" if notes else "")


def _summary_table(summaries: Sequence[Summary], *, is_at_end: bool) -> str:
    if not summaries:
        return "<p>No run has an evaluation yet.</p>"
    head = (
        "method",
        "runs",
        "step",
        "last: the result" if is_at_end else "at this step, not the end",
        "IQM of the last",
        "best, chosen afterwards",
        "area under the curve",
        "worst task",
    )
    rows = [
        [
            f'<td class="name">{escape(one.label)}</td>',
            f"<td>{one.num_runs}</td>",
            f"<td>{one.step:,}</td>",
            f'<td class="result">{_with_interval(one.last, one.last_interval)}</td>',
            f"<td>{_with_interval(one.iqm, one.iqm_interval)}</td>",
            f"<td>{_with_interval(one.best, one.best_interval)}</td>",
            f"<td>{_with_interval(one.area, one.area_interval)}</td>",
            f"<td>{one.worst:.3f} <small>{escape(one.worst_task)}</small></td>",
        ]
        for one in summaries
    ]
    return _table(head, rows) + (
        '<p class="soft">Success, mean over tasks and runs, with 95% intervals over runs: bootstrap of whole runs; of '
        "the IQM, stratified by task. Best is the highest of all evaluations up to that step, each run its own: it "
        "grows with the number of evaluations and is no result. Area: mean success between the first evaluation and "
        "the last. Worst task: mean over runs of each run's lowest, and the task that is lowest on average.</p>"
    )


def _run_table(comparison: Comparison) -> str:
    head = [
        *("run", "method", "seed", "steps", "evaluated", "last", "best", "best at", "area"),
        *("commit", "hardware", "command"),
    ]
    rows = []
    for row in tables.run_rows(comparison):
        name, method, seed, *numbers, commit, hardware, command = row
        cells = f"<td>{seed}</td>" + "".join(f"<td>{_number(value)}</td>" for value in numbers)
        short = " and ".join(
            one[:_COMMIT_DIGITS] + ("+changes" if "+" in one else "") for one in str(commit).split(" and ")
        )
        rows.append(
            [
                f'<td class="name">{escape(str(name))}</td>',
                f'<td class="text">{escape(str(method))}</td>',
                cells,
                f'<td class="text" title="{escape(str(commit))}">{escape(short)}</td>',
                f'<td class="text">{escape(str(hardware))}</td>',
                f'<td class="command">{escape(str(command))}</td>',
            ]
        )
    return _table(head, rows)


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    header = "".join(
        f"<th{' class=text' if name in ('method', 'commit', 'hardware', 'command') else ''}>{name}</th>"
        for name in head
    )
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _figure(drawn: Drawn, source: Mapping[str, str]) -> str:
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in source.items())
    files = ", ".join(f'<a href="{drawn.name}.{kind}">{kind.upper()}</a>' for kind in ("png", "pdf"))
    return f"""<section id="{drawn.name}"><h2>{escape(drawn.title)}</h2>
<figure>{to_svg(drawn)}<figcaption>{escape(drawn.caption)} {files}<dl>{facts}</dl></figcaption></figure></section>
"""


def _missing(missing: Sequence[Missing]) -> str:
    lines = "".join(f"<li>{escape(one.title)}: {escape(one.reason)}.</li>" for one in missing)
    return f"<h2>Not drawn</h2><ul>{lines}</ul>" if missing else ""


def _with_interval(value: float, interval: Band) -> str:
    if not np.isfinite(interval.low):
        return f"{value:.3f}"
    if interval.low == interval.high:
        return f"{value:.3f} <small>(no spread)</small>"
    return f"{value:.3f} <small>({interval.low:.3f} to {interval.high:.3f})</small>"


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"
