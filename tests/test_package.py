"""The package imports lightly and the repository's links point into it."""

import subprocess
import sys
from pathlib import Path

import pytest

import mtrl

ROOT = Path(__file__).parents[1]


def test_import_needs_no_torch():
    code = "import sys, mtrl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_backward_is_the_one_of_autograd():
    autograd = pytest.importorskip("mtrl.autograd")
    assert mtrl.backward is autograd.backward


def test_public_names_are_listed():
    assert dir(mtrl) == ["__version__", "backward"]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="forward"):
        mtrl.forward  # noqa: B018


@pytest.mark.parametrize("name", ["agents", "envs", "configs"])
def test_link_leads_into_the_package(name):
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("mtrl") / name
