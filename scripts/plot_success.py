"""What did runs learn, and when? Success of every evaluation over environment steps, mean and per task.

python scripts/plot_success.py runs/mt10-aligned-* --out success.png

One line per run; runs of the same method share a colour. Needs the extra `plots`.
"""

import argparse
import json
import math
from pathlib import Path

import matplotlib as mpl
import yaml

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

COLUMNS = 6
PANEL = (2.4, 2.0)  # inches


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description="Draw success over environment steps, one panel per task.")
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--out", type=Path, default=Path("success.png"), help="picture to write")
    args = parser.parse_args()
    if not args.out.parent.is_dir() or args.out.suffix.lstrip(".") not in plt.figure().canvas.get_supported_filetypes():
        parser.error(f"--out: expected a picture such as success.png in a folder that exists, got {args.out}")
    curves = {run: _curves(parser, run) for run in args.runs}
    methods = {run: _method(run) for run in args.runs}
    colours = {method: f"C{index}" for index, method in enumerate(dict.fromkeys(methods.values()))}
    panels = ["mean", *dict.fromkeys(name for curve in curves.values() for name in curve if name != "mean")]
    num_columns = min(COLUMNS, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure, axes = plt.subplots(
        num_rows,
        num_columns,
        figsize=(PANEL[0] * num_columns, PANEL[1] * num_rows + 0.5),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for panel, axis in zip(panels, axes.flat, strict=False):
        for run, curve in curves.items():
            axis.plot(*curve.get(panel, ((), ())), colours[methods[run]], marker=".", markersize=3, linewidth=1)
        axis.set(title=panel.removesuffix("-v3"), ylim=(-0.03, 1.03))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        axis.label_outer()
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for column in axes.T[:, : math.ceil(len(panels) / num_columns)]:
        last = [axis for axis in column if axis.axison][-1]
        last.tick_params(labelbottom=True)
        last.set_xlabel("environment steps")
        last.xaxis.set_major_formatter(EngFormatter(sep=""))
    for row in axes:
        row[0].set_ylabel("success")
    counts = {method: sum(found == method for found in methods.values()) for method in colours}
    handles = [
        Line2D([], [], color=colour, label=f"{name}, {counts[name]} {'run' if counts[name] == 1 else 'runs'}")
        for name, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    figure.savefig(args.out, dpi=120)
    print(f"wrote {args.out}")


def _curves(parser: argparse.ArgumentParser, run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return per task, and for their mean, the steps of the evaluations and their success."""
    path = run / "metrics.jsonl"
    if not (path.is_file() and (run / "config.yaml").is_file()):
        parser.error(f"{run} is not a run directory: expected metrics.jsonl and config.yaml there")
    # A run that is being written may end in a part of a line.
    records = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    records = [record for record in records if "success/mean" in record]
    if not records:
        parser.error(f"{run} has no evaluation yet")
    steps = [record["step"] for record in records]
    names = [name.removeprefix("success/") for name in records[0] if name.startswith("success/")]
    return {name: (steps, [record[f"success/{name}"] for record in records]) for name in names if name != "worst"}


def _method(run: Path) -> str:
    """Name the aggregators of critic and actor, once if they are the same."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    return " / ".join(dict.fromkeys([config["critic.aggregator"], config["actor.aggregator"]]))


if __name__ == "__main__":
    main()
