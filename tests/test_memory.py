"""Freed memory stays in the process: large blocks are served again without new pages."""

import platform
import subprocess
import sys

import pytest

from mtrl import memory

COUNT_PAGE_FAULTS = """
import resource
from mtrl.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
block = b"x" * 2**26
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_is_served_again_without_new_pages(keep):
    code = COUNT_PAGE_FAULTS.format(keep=keep)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # 64 MiB are 16384 pages of 4 KiB, or 32 of 2 MiB where the kernel hands out huge ones.
    assert (int(run.stdout) < 16) == keep


def test_nothing_is_done_on_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # would fail if called
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
@pytest.mark.parametrize("failure", [OSError, AttributeError])
def test_a_c_library_without_the_function_is_left_alone(monkeypatch, failure):
    def load(name):
        raise failure

    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
def test_a_refusal_of_the_c_library_is_told(monkeypatch):
    class Refusing:
        def mallopt(self, parameter, value):
            return 0

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Refusing())
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize(
    ("line", "base", "limit", "usage", "cache"),
    [
        ("0::/job/step", "", "memory.max", "memory.current", "inactive_file"),
        ("8:memory:/job/step", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_the_limits_of_a_job_and_of_all_around_it_count(tmp_path, line, base, limit, usage, cache):
    membership = tmp_path / "membership"
    membership.write_text(f"9:pids:/elsewhere\n{line}\n")
    root = tmp_path / "groups"
    step = root / base / "job" / "step"
    step.mkdir(parents=True)
    for folder, allowed in ((step, "max"), (step.parent, "1000")):
        (folder / limit).write_text(f"{allowed}\n")
        (folder / usage).write_text("700\n")
        (folder / "memory.stat").write_text(f"anon 400\n{cache} 300\n")
    # The step has no limit. The job may take 1000 and takes 700, of which 300 are cache that can be dropped.
    assert list(memory._available_to_groups(root, membership)) == [600]
    assert list(memory._available_to_groups(root, tmp_path / "absent")) == []
