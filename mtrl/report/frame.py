"""How every figure looks: colours, sizes, legend, the warning above and the source below; how it becomes a file.

Pictures in the page take the colours of text and grid from the page, so that they read on light and on dark.
"""

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from mtrl.report.methods import Comparison
from mtrl.statistics import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 10.0
"""Inches."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's palette for all kinds of colour vision, without yellow, which white hides, and with grey for black,
which dark hides."""

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""More methods than colours: the next dashes."""

_FOREGROUND, _GRID, _WARNING = "#1b1c1e", "#d4d5d7", "#c04f00"
"""Stand for the page's colours, and for themselves on paper."""

_VARIABLES = {
    _FOREGROUND: "var(--text)",
    _GRID: "var(--grid)",
    _WARNING: "var(--warning)",
    COLOURS[0].lower(): "var(--first)",
}

_RC: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": _FOREGROUND,
    "axes.labelcolor": _FOREGROUND,
    "axes.edgecolor": _FOREGROUND,
    "axes.linewidth": 0.6,
    "xtick.color": _FOREGROUND,
    "ytick.color": _FOREGROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "mtrl",
    "pdf.fonttype": 42,
}

_LINE = 0.2
"""Inches that a line of the legend takes."""

_MOST_BANDS = 3
"""Methods whose bands from the lowest run to the highest can be told apart."""

_MOST_INTERVALS = 12
"""Methods whose intervals, narrower bands, can be."""

_RESAMPLES = 1000
"""Of bands along whole curves."""

_DPI = 130

_FOOTER_WIDTH = 150
"""Characters of a line below a picture."""

_HATCHED = "#777777"


class Drawn(NamedTuple):
    """A figure."""

    name: str
    """Of its files."""
    title: str
    caption: str
    """What is drawn, what lines and bands are."""
    figure: Figure


class Missing(NamedTuple):
    """A figure that cannot be drawn."""

    title: str
    reason: str


@contextmanager
def style() -> Iterator[None]:
    """Let figures made here have the common look."""
    with mpl.rc_context(_RC):
        yield


def new(comparison: Comparison, height: float, *, has_legend: bool) -> Figure:
    """Return an empty figure with the warning of few seeds and, below, the methods' colours.

    Args:
        comparison: What is drawn.
        height: Inches of the panels together.
        has_legend: Whether colours stand for methods.
    """
    labels = [method.label for method in comparison.methods]
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), int(WIDTH / (0.075 * longest + 0.6))))
    legend_lines = math.ceil(len(labels) / columns) if has_legend else 0
    figure = Figure(figsize=(WIDTH, height + _LINE * legend_lines + (0.25 if comparison.few_seeds else 0)))
    figure.set_layout_engine("constrained", w_pad=0.05, h_pad=0.05)
    if comparison.few_seeds:
        figure.suptitle(comparison.few_seeds, x=0.01, ha="left", fontsize=8.5, color=_WARNING)
    if has_legend:
        handles = [
            Line2D([], [], label=f"{method.label} ({len(method.runs)})", **line_style(index))
            for index, method in enumerate(comparison.methods)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=columns)
    return figure


def line_style(index: int) -> dict:
    """Return colour and dashes of the method at this place in the list: the same in every figure."""
    return {"color": colour(index), "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)]}


def colour(index: int) -> str:
    """Return the colour of the method at this place in the list."""
    return COLOURS[index % len(COLOURS)]


def curve(axes: "Axes", steps: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray, index: int) -> None:
    """Draw one method's line and band; a curve of one point as a mark with a bar."""
    style = line_style(index)
    axes.plot(steps, middle, **style, marker="o" if len(steps) == 1 else None, markersize=4)
    if len(steps) == 1:
        axes.vlines(steps, low, high, color=style["color"], alpha=0.5)
    else:
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)


def spread(comparison: Comparison, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest run, on axis 0, at each step; NaN where bands would hide each other."""
    if len(comparison.methods) <= _MOST_BANDS:
        return values.min(0), values.max(0)
    return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)


def band(
    comparison: Comparison, bootstrap: Callable[..., Band], statistic: Callable[..., np.ndarray], scores: np.ndarray
) -> Band:
    """Return a bootstrap's interval along a curve; NaN where there are too many curves to see any."""
    if len(comparison.methods) <= _MOST_INTERVALS:
        return bootstrap(statistic, scores, resamples=_RESAMPLES)
    unknown = np.full_like(statistic(scores), np.nan)
    return Band(unknown, unknown)


def without_bands(comparison: Comparison) -> str:
    """Return what a caption says where `band` gives none."""
    few = len(comparison.methods) <= _MOST_INTERVALS
    return "" if few else f" Bands of more than {_MOST_INTERVALS} methods would hide each other and are not drawn."


def band_text(comparison: Comparison) -> str:
    """Return what a caption says of the band that `spread` gives."""
    return "; band: the lowest and the highest run" if len(comparison.methods) <= _MOST_BANDS else ""


def steps_axis(axes: "Axes") -> None:
    """Label the axis of environment steps."""
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(4))


def grid_of(figure: Figure, count: int, columns: int) -> "list[Axes]":
    """Return that many panels in rows, on the same axes; what is left of the last row stays empty."""
    rows = math.ceil(count / columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=count > 2, sharey=True)
    for panel in panels.flat[count:]:
        panel.set_axis_off()
    return list(panels.flat[:count])


def image(axes: "Axes", values: np.ndarray, cmap: str, low: float, high: float) -> AxesImage:
    """Draw a matrix; what is not a number stays grey."""
    colours = mpl.colormaps[cmap].with_extremes(bad=_HATCHED)
    axes.grid(visible=False)
    return axes.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="none"
    )


def write_numbers(axes: "Axes", values: np.ndarray, texts: np.ndarray, *, dark_below: float, size: float) -> None:
    """Write a text into every cell of a matrix, white where the value's colour is dark."""
    for (row, column), value in np.ndenumerate(values):
        ink = "#ffffff" if not value > dark_below else "#000000"
        axes.text(column, row, str(texts[row, column]), ha="center", va="center", fontsize=size, color=ink)


def to_svg(drawn: Drawn) -> str:
    """Return the figure as an element of a page: no names in common with others, colours of the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawn.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawn.figure.set_layout_engine("none")  # the other files need not find the places again
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<(?:g|image)\b[^>]*?) id="[^"]*"', r"\1", text)  # nothing refers to them, and some occur twice
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{drawn.name}-", text)
    for fixed, variable in _VARIABLES.items():
        text = text.replace(fixed, variable)
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{drawn.title}" ', text, count=1)


def save(drawn: Drawn, folder: Path, source: Mapping[str, str]) -> list[str]:
    """Write the figure as PNG and PDF with its source below; return the names of the files."""
    text = "\n".join(
        line
        for key, value in source.items()
        for line in textwrap.wrap(f"{key}: {value}", _FOOTER_WIDTH, subsequent_indent="    ")
    )
    for legend in drawn.figure.legends:  # one outside the panels would move below the source
        box = legend.get_window_extent().transformed(drawn.figure.transFigure.inverted())
        legend.borderaxespad = 0
        legend.set_loc("lower left")
        legend.set_bbox_to_anchor((box.x0, box.y0), drawn.figure.transFigure)
    footer = drawn.figure.text(0.01, -0.01, text, va="top", fontsize=6.5, linespacing=1.35, parse_math=False)
    names = [f"{drawn.name}.{kind}" for kind in ("png", "pdf")]
    for name in names:
        metadata = {"CreationDate": None} if name.endswith("pdf") else {}
        drawn.figure.savefig(folder / name, dpi=_DPI, bbox_inches="tight", facecolor="white", metadata=metadata)
    footer.remove()
    return names
