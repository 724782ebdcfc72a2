"""Report what runs found: `python -m mtrl.report RUN [RUN ...]`.

Writes one page that needs nothing else, index.html, every figure as PNG and PDF, and the numbers as CSV. Reads run
directories only, also while the runs train, and changes nothing there. Runs that differ only in their seed are one
method. Needs the extra `plots`.

Exit codes: 0 done, 2 usage.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import tyro

from mtrl import arguments
from mtrl.cli import UsageError, error


@dataclass(frozen=True, kw_only=True)
class Options:
    """Report what runs found: one page, every figure as PNG and PDF, the numbers as CSV."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, also while they train. Runs that differ only in their seed are one method."""
    output: Path = Path("report")
    """Folder to write; an earlier report there is replaced, other files are never touched."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = arguments.read(Options, argv, "python -m mtrl.report")
    try:
        sys.stdout.write(_report(options))
    except UsageError as problem:
        error(str(problem))
    return 0


def _report(options: Options) -> str:
    """Write the report; return what to print."""
    if find_spec("matplotlib") is None:
        raise UsageError("the figures need matplotlib, which comes with the extra 'plots'")
    # Imported only after the command line was found right: matplotlib takes a second.
    from mtrl.report import (
        comparison_figures,
        folder,
        frame,
        gradient_figures,
        methods,
        page,
        provenance,
        success_figures,
        summary,
        tables,
        time_figure,
    )
    from mtrl.report.frame import Drawn

    comparison = methods.compare(options.runs)
    summaries = summary.summarise(comparison)
    improvements = comparison_figures.improvements(comparison)
    source = provenance.lines(comparison.runs)
    with folder.replace(options.output) as place, frame.style():
        figures = [
            *success_figures.draw(comparison, summaries),
            *comparison_figures.draw(comparison, improvements),
            *gradient_figures.draw(comparison),
            time_figure.draw(comparison),
        ]
        drawn = [one for one in figures if isinstance(one, Drawn)]
        names = tables.write(comparison, summaries, improvements, place)
        text = page.build(comparison, summaries, figures, names)
        (place / "index.html").write_text(text, encoding="utf-8")
        for one in drawn:
            frame.save(one, place, source)
    counts = (
        f"{len(comparison.runs)} runs, {len(comparison.methods)} methods, {len(drawn)} figures, {len(names)} tables"
    )
    lines = [*comparison.notes, comparison.few_seeds, f"{counts}: written to {options.output / 'index.html'}"]
    return "".join(f"{line}\n" for line in lines if line)


if __name__ == "__main__":
    sys.exit(main())
