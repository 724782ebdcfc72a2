"""List the methods, or say all about one.

python -m mtrl.aggregators
python -m mtrl.aggregators aligned
"""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence

from mtrl.aggregators import REGISTRY, names
from mtrl.option_docs import describe, title
from mtrl.registry import resolve

_WIDTH = 118
_HEADINGS = ("name", "needs", "state", "invariant to scaled", "paper")


def main() -> None:
    """Print the list, or what there is to say about one method."""
    parser = argparse.ArgumentParser(prog="python -m mtrl.aggregators", description="The methods, or all about one.")
    parser.add_argument("name", nargs="?", help="a method, or MODULE:CLASS; by default all are listed, one per line")
    name = parser.parse_args().name
    if name is None:
        sys.stdout.write(listing())
        return
    try:
        resolve(REGISTRY, "aggregator", name)
    except ValueError as problem:
        parser.exit(2, f"error: {problem}\n")
    sys.stdout.write(account(name))


def listing() -> str:
    """Return all methods, one per line, below a line of headings."""
    from mtrl.aggregators.traits import examine

    rows: list[tuple[str, ...]] = [_HEADINGS]
    for name in names():
        method = resolve(REGISTRY, "aggregator", name)
        config = method.Config()
        traits = examine(method(config))
        rows.append((name, traits.needs(), traits.memory(), traits.invariant_to(), _paper(title(config))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(_line(row, widths) for row in rows)


def account(name: str) -> str:
    """Return the docstring of one method, what it needs and keeps, and its options."""
    from mtrl.aggregators.traits import examine

    method = resolve(REGISTRY, "aggregator", name)
    config = method.Config()
    traits = examine(method(config))
    facts = f"needs {traits.needs()}; state: {traits.memory()}; invariant to scaled: {traits.invariant_to()}"
    options = [
        f"  {option.name} = {option.value or '()'}\n"
        + textwrap.indent(textwrap.fill(option.text, _WIDTH - 6), " " * 6)
        + "\n"
        for option in describe(config)
    ]
    head = f"{name}: {title(config)}"
    return "\n".join([head, "", inspect.getdoc(method) or "", "", facts, "", "Options, with their defaults:", ""]) + (
        "".join(options) or "  none\n"
    )


def _paper(text: str) -> str:
    """Return "Authors 2020" from the "Method (Authors 2020)" that a config's docstring begins with."""
    found = re.match(r"[^(]*\(([^)]*)\d{4}\)", text)
    if found is None:
        return "-"
    return found[0] if not found[1] else re.split(r"[()]", found[0])[1]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


if __name__ == "__main__":
    main()
