"""What is compiled is kept, and the state of what is kept stops nobody."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core import config

from mtrl.envs.metaworld import kernels
from mtrl.envs.metaworld.cache import fingerprint
from mtrl.envs.metaworld.kernels import compile as compiler
from tests.envs.metaworld.test_cache import full_disk


def test_a_folder_chosen_for_numba_is_still_named_by_all_sources(tmp_path):
    code = "from mtrl.envs.metaworld.kernels.compile import FOLDER; print(FOLDER)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    sources = Path(kernels.__file__).parent.rglob("*.py")
    assert Path(run.stdout.strip()) == tmp_path / "mtrl" / f"kernels-{fingerprint(sources)}"


def double(number):
    return 2 * number


def nothing(_):
    pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "FOLDER", tmp_path)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def use_kernel():
    """Call a kernel as a process does that has compiled nothing yet; return whether it found the code."""
    kernel: Any = compiler.kernel(double)
    assert kernel(21) == 42
    return bool(kernel.stats.cache_hits)


def use_entry():
    entry = compiler.Entry(nothing)
    assert entry.address
    return bool(entry._compiled._cache_hits)


@pytest.mark.parametrize("use", [use_kernel, use_entry])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_file_is_replaced(folder, use, kind):
    assert [use(), use()] == [False, True]
    (file,) = folder.rglob(f"*.{kind}")
    content = file.read_bytes()
    for damaged in (b"", content[:20], content[: len(content) // 2]):
        file.write_bytes(damaged)
        assert [use(), use()] == [False, True]


@pytest.mark.parametrize("use", [use_kernel, use_entry])
def test_a_full_disk_costs_a_warning(folder, use):
    with full_disk(), pytest.warns(RuntimeWarning, match=f"cannot write in {folder}: File too large"):
        assert not use()
    assert [use(), use()] == [False, True]
