"""`python -m mtrl.aggregators`: every method on a line, or all about one."""

import dataclasses
import subprocess
import sys

import pytest

from mtrl import aggregators
from mtrl.aggregators import make, names
from mtrl.aggregators.__main__ import account, listing, main
from mtrl.aggregators.base import Need
from mtrl.aggregators.traits import examine
from tests.aggregators.doubles import LossShare, SignVote
from tests.aggregators.traits import draws_random_numbers, learns, sees_gradients_of_parameters


def run(capsys, monkeypatch, *argv: str) -> str:
    monkeypatch.setattr("sys.argv", ["mtrl.aggregators", *argv])
    main()
    return capsys.readouterr().out


def test_every_method_has_a_line_that_fits(capsys, monkeypatch):
    out = run(capsys, monkeypatch)
    head, *lines = out.splitlines()
    assert head.split() == ["name", "needs", "state", "invariant", "to", "scaled", "paper"]
    assert tuple(line.split()[0] for line in lines) == names()
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("mean", "losses | - | - | -"),
        ("rlw", "losses | random | - | Lin et al. 2022"),
        ("famo", "losses > 0, losses after | state | losses | Liu et al. 2023"),
        ("dibs", "Gramian | - | gradients, losses | DiBS-MTL (2026)"),
        ("it_mtl", "Gramian, losses | - | - | Fifty et al. 2020"),
        ("moco", "rows, losses > 0 | state | gradients | Fernando et al. 2023"),
        ("gradvac", "Gramian | state, random | - | Wang et al. 2021"),
        ("aligned_ub", "representation | - | - | Senushkin et al. 2023"),
    ],
)
def test_lines_of_known_methods(name, facts):
    (line,) = [line for line in listing().splitlines() if line.split()[0] == name]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == [name, *facts.split(" | ")]


def test_options_change_what_is_found():
    assert examine(make("it_mtl", evaluation="lookahead")).needs() == "Gramian, lookahead, losses"
    assert examine(make("gradnorm", alpha=0.5)).needs() == "Gramian, losses > 0"
    assert examine(make("gradnorm")).needs() == "Gramian"


@pytest.mark.parametrize("name", sees_gradients_of_parameters())
def test_state_and_randomness_are_as_in_use(name):
    found = examine(make(name))
    assert found.is_random == draws_random_numbers(name)
    assert found.keeps_state == learns(name)


def test_method_is_left_as_it_was():
    method = make("moco")
    examine(method)
    assert not method.state_dict()
    assert method.num_tasks is None


@pytest.mark.parametrize(
    ("method", "needs", "memory"),
    [(SignVote, "rows", "-"), (LossShare, "losses, losses after", "state")],
)
def test_new_method_is_described_without_a_line_of_its_own(method, needs, memory):
    found = examine(method(method.Config()))
    assert (found.needs(), found.memory(), found.invariant_to()) == (needs, memory, "-")


def test_new_method_appears_in_the_list(monkeypatch):
    monkeypatch.setitem(aggregators.REGISTRY, "sign_vote", "tests.aggregators.doubles:SignVote")
    assert listing().splitlines()[-1].split() == ["sign_vote", "rows", "-", "-", "-"]
    assert "length = 1.0\n      Length of the move in each parameter.\n" in account("sign_vote")


@pytest.mark.parametrize("name", names())
def test_account_has_docstring_and_options_and_fits(name):
    text = account(name)
    method = make(name)
    assert (type(method).__doc__ or "").split()[:8] == text.split("\n\n")[1].split()[:8]
    for field in dataclasses.fields(vars(type(method))["Config"]):
        assert f"  {field.name} = " in text
    assert max(map(len, text.splitlines())) <= 120


def test_account_explains_an_option_with_its_choices(capsys, monkeypatch):
    out = run(capsys, monkeypatch, "aligned")
    assert "scale_mode = min\n      Common length s of the aligned gradients" in out
    assert "(min, median, rmse)" in out
    assert "CVPR 2023" in " ".join(out.split())


def test_unknown_name_is_answered_with_the_nearest_and_without_torch():
    code = (
        "import runpy, sys\nsys.argv[1:] = ['alligned']\n"
        "try:\n    runpy.run_module('mtrl.aggregators', run_name='__main__')\n"
        "except SystemExit as end:\n    sys.exit(9 if 'torch' in sys.modules else end.code)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert found.stderr.startswith("error: unknown aggregator 'alligned'. Did you mean 'aligned'?")


def test_needs_cover_every_kind():
    assert {make(name).need for name in names()} | {make("it_mtl", evaluation="lookahead").need} == set(Need)
