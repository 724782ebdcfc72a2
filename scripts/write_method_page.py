"""What is each method, from where, at which cost, and where do ours differ from the published codes?

Writes docs/methods.md from the docstrings, configs and declarations of the methods, and from the list of differences
in tests/aggregators/differences.py, measured on the reference vectors:

    python scripts/write_method_page.py
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

from mtrl.aggregators import REGISTRY, names
from mtrl.aggregators.base import Need
from mtrl.aggregators.traits import examine
from mtrl.option_docs import describe, title
from mtrl.registry import resolve

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"

COSTS = {
    Need.LOSSES: "one backward pass of the weighted sum of the losses",
    Need.REPRESENTATION: "one backward pass, and the gradients of the representation",
    Need.GRAMIAN: "the gradient of every task, T^2 P for their inner products, T P for the direction",
    Need.ROWS: "the gradient of every task",
    Need.LOOKAHEAD: "the gradient of every task, T^2 P for their inner products, and the losses at other parameters",
}
"""What a method pays for what it needs; T tasks, P shared parameters."""

HEAD = """# Methods

Written by `python scripts/write_method_page.py` from the methods' docstrings: edit those. `python -m mtrl.aggregators`
lists the methods in a terminal, `python -m mtrl.aggregators NAME` says all about one.

T tasks with losses L_i and P shared parameters; g_i is the gradient of task i, a row of the Jacobian J, n_i its length,
u_i = g_i / n_i; G = J J^T is the Gramian. A method returns a direction d, to be descended. *Invariant to scaled
gradients*: the direction of independent gradients stays, up to its length, when each is multiplied by a positive number
of its own, in every update another; where a method does not look at losses, this covers every increasing transform of
every loss. *Invariant to scaled losses*: it stays when each loss is measured in another unit. Both are tested over
twelve decades. The direction is that of the shared parameters: a task's private ones follow its own loss, unweighted,
also where a published method weights whole losses.
"""

DIFFERENCES_HEAD = """## Where we differ on purpose

From the results of published code in `tests/data`, whose README names the codes. Sizes are measured on those vectors:
norm(ours - published) relative to the longer of the two, so 1 where one of them is zero or much shorter; *without a
number*: the code raised or returned NaN. Everything else in these files, and all of the files that have no row, is
reproduced to their tolerances.

| vectors | cases | published | ours | size | why |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PAGE, help="file to write")
    parser.parse_args().out.write_text(page())


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, _summary(), *map(_section, names()), DIFFERENCES_HEAD.rstrip(), _differences()])


def _summary() -> str:
    rows = ["| name | needs | state | invariant to scaled |", "|---|---|---|---|"]
    for name in names():
        method = resolve(REGISTRY, "aggregator", name)
        traits = examine(method(method.Config()))
        rows.append(f"| [`{name}`](#{name}) | {traits.needs()} | {traits.memory()} | {traits.invariant_to()} |")
    return "\n".join(rows) + "\n"


def _section(name: str) -> str:
    """Return what there is to say about one method."""
    method = resolve(REGISTRY, "aggregator", name)
    config = method.Config()
    traits = examine(method(config))
    body, source, difference, cost = _parts(inspect.getdoc(method) or "")
    cost = f"{COSTS[traits.need]}; {cost}" if cost else COSTS[traits.need]
    facts = [
        ("Source", source),
        ("Differs", difference),
        ("Needs", traits.needs()),
        ("State", traits.memory()),
        ("Invariant to scaled", traits.invariant_to()),
        ("Cost", cost),
    ]
    lines = [f"## {name}", "", f"**{_escaped(title(config))}**", "", _markdown(body), ""]
    lines += [f"- *{label}*: {_escaped(text)}" for label, text in facts if text]
    options = [f"| `{option.name}` | `{option.value or '()'}` | {_cell(option.text)} |" for option in describe(config)]
    if options:
        lines += ["", "| option | default | |", "|---|---|---|", *options]
    return "\n".join(lines) + "\n"


def _parts(docstring: str) -> tuple[str, str, str, str]:
    """Return what a docstring says of the method, its source, its differences from other codes, and its cost."""
    labelled = {"Source: ": "", "Cost: ": ""}
    body = []
    for paragraph in docstring.split("\n\n"):
        label = next((label for label in labelled if paragraph.startswith(label)), None)
        if label is None:
            body.append(paragraph)
        else:
            labelled[label] = " ".join(paragraph.removeprefix(label).split())
    source, _, difference = labelled["Source: "].partition("Differs from ")
    return "\n\n".join(body), source.strip(), f"from {difference}" if difference else "", labelled["Cost: "]


def _markdown(docstring: str) -> str:
    """Return paragraphs as they are, indented formulas as code."""
    return "\n\n".join(
        paragraph if paragraph.startswith("    ") else _escaped(paragraph) for paragraph in docstring.split("\n\n")
    )


def _escaped(text: str) -> str:
    """Keep what stands in formulas from being read as markup."""
    parts = enumerate(re.split(r"(`[^`]*`)", text))  # every other one is code
    return "".join(part if index % 2 else re.sub(r"([*<_~|])", r"\\\1", part) for index, part in parts)


def _cell(text: str) -> str:
    return " ".join(_escaped(text).split())


def _differences() -> str:
    from tests.aggregators.differences import DIFFERENCES

    rows = []
    for entry in DIFFERENCES:
        for file in entry.files:
            cells = ", ".join(entry.cases), entry.published, entry.ours, entry.size(file), entry.why
            rows.append(f"| `{file}` | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(sorted(rows)) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the list of differences stands beside the tests
    main()
