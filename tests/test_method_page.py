"""docs/methods.md says what the methods say, and lists every difference from published results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.aggregators import names
from scripts import write_method_page
from scripts.write_method_page import PAGE, ROOT
from tests.aggregators.differences import DIFFERENCES
from tests.aggregators.test_invariances import SHIPPED
from tests.aggregators.vectors import DATA

SCRIPT = Path(write_method_page.__file__)
SIZE = re.compile(r"(?<=median )[\d.e-]+(?=[ ,])|(?<=up to )[\d.e-]+(?=[ ,])")


def section(name: str) -> str:
    text = PAGE.read_text()
    start = text.index(f"\n## {name}\n")
    return text[start : text.index("\n## ", start + 1)]


def test_page_is_up_to_date(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--out", tmp_path / "methods.md"], check=True)
    found, expected = (path.read_text() for path in (PAGE, tmp_path / "methods.md"))
    hint = "run python scripts/write_method_page.py"
    assert SIZE.sub("#", found) == SIZE.sub("#", expected), hint
    # Sizes have one digit; another machine may round the other way, and what grows from rounding errors is its own.
    stable = [
        "\n".join(line for line in text.splitlines() if "rounding error" not in line) for text in (found, expected)
    ]
    sizes = [[float(size) for size in SIZE.findall(text)] for text in stable]
    assert len(sizes[0]) > 40
    assert sizes[0] == pytest.approx(sizes[1], rel=0.5), hint


@pytest.mark.parametrize("name", [name for name in names() if name in SHIPPED])
def test_every_method_says_where_it_is_from_how_it_differs_and_what_it_costs(name):
    text = section(name)
    for label in ("Source", "Differs", "Needs", "State", "Invariant to scaled", "Cost"):
        assert re.search(rf"^- \*{label}\*: \S", text, re.MULTILINE), label
    cost = text.partition("- *Cost*: ")[2].partition("\n")[0]
    assert ";" in cost  # the method's own beside that of what it needs


def test_every_list_of_differences_is_of_a_file_and_has_a_row():
    text = PAGE.read_text().partition("## Where we differ on purpose")[2]
    for entry in DIFFERENCES:
        for file in entry.files:
            assert (DATA / f"{file}.json").is_file(), file
            assert f"| `{file}` |" in text
    assert text.count("\n| `") == sum(len(entry.files) for entry in DIFFERENCES)


def test_formulas_are_no_markup():
    assert r"sum\_i w\_i L\_i" in section("aligned")
    assert r"\<g\_i, d>" in section("mgda")
    assert "\n    sum_j w_j (L_j(theta)" in section("it_mtl")  # an indented formula is code
    assert "- *Cost*: the gradient of every task" in section("cagrad")
    assert "`exact` 1 to 9 linear systems" in section("cagrad")


def test_the_readme_names_every_method():
    table = (ROOT / "README.md").read_text().partition("\n## Methods\n")[2].partition("\n\n`python -m")[0]
    listed = set(re.findall(r"`(\w+)`", table))
    assert set(names()) <= listed
