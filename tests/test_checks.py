"""What is found and advised, with faults put in where the system is asked."""

import errno
import importlib.metadata
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from mtrl import checks, machine
from mtrl.machine import Space

GIBIBYTE = 2**30


def test_every_package_of_the_project_file_is_compared_with_its_bound():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found = {check.name: check for check in checks.packages()}
    expected = {Requirement(line).name: Requirement(line) for line in project["dependencies"]}
    assert set(found) == {"python", *expected}
    for name, needed in expected.items():
        version = importlib.metadata.version(name)
        assert found[name].numbers["version"] == version
        assert (found[name].status == "ok") == needed.specifier.contains(version)


def test_a_package_of_another_version_or_missing_is_named_with_what_to_install(monkeypatch):
    version = importlib.metadata.version

    def other(name):
        if name == "tyro":
            raise importlib.metadata.PackageNotFoundError(name)
        return "3.4.0" if name == "mujoco" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    found = {check.name: check for check in checks.packages()}
    assert (found["mujoco"].status, found["mujoco"].advice) == ("fail", "pip install 'mujoco==3.3.0'")
    assert (found["tyro"].status, found["tyro"].found) == ("fail", "not installed")


@pytest.mark.parametrize(("free", "status"), [(6, "ok"), (4, "warn"), (0.5, "fail")])
def test_little_disk_is_warned_of_and_too_little_ends_it(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(machine, "space", lambda _: Space(int(free * GIBIBYTE), 100 * GIBIBYTE))
    monkeypatch.setattr(machine, "fsync_seconds", lambda _: 0.01)
    found = checks.disk(tmp_path)
    assert found.status == status
    assert ("--run-dir" in found.advice) == (status != "ok")
    assert f"{free:.1f} GiB of 100.0 GiB free" in found.found


def test_a_slow_disk_and_a_read_only_one(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "space", lambda _: Space(10 * GIBIBYTE, 100 * GIBIBYTE))
    monkeypatch.setattr(machine, "fsync_seconds", lambda _: 0.5)
    slow = checks.disk(tmp_path)
    assert (slow.status, slow.numbers["fsync_seconds"]) == ("warn", 0.5)
    assert "--checkpoint-every" in slow.advice

    def refuse(_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine, "fsync_seconds", refuse)
    read_only = checks.disk(tmp_path)
    assert read_only.status == "fail"
    assert "cannot write: Read-only file system" in read_only.found


def test_a_limit_below_the_cores_and_other_work_are_warned_of(monkeypatch):
    monkeypatch.setattr(machine, "allowed_cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)
    monkeypatch.setattr(machine, "load", lambda: 3.0)
    found = checks.cores()
    assert found.numbers == {"usable": 2, "quota": 2.5, "load": 3.0}
    assert found.found == "2 usable of 4, limited to the time of 2.5, load 3.0"
    assert found.advice == "give --threads 2 at most; other work is running: the speeds below are too low"
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    monkeypatch.setattr(machine, "load", lambda: 1.0)
    assert checks.cores().status == "ok"


@pytest.mark.parametrize(("free", "status"), [(4, "ok"), (2, "warn"), (0.5, "fail")])
def test_memory_is_judged_by_what_mt10_takes(monkeypatch, free, status):
    monkeypatch.setattr("mtrl.memory.free_bytes", lambda _: int(free * GIBIBYTE))
    assert checks.memory().status == status


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines whose torch sees no GPU")
def test_a_driver_without_cuda_in_torch_is_warned_of(monkeypatch):
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: True)
    assert checks.device().status == "warn"
    assert "sees no GPU" in checks.device().advice
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: False)
    assert checks.device().status == "ok"


def test_shared_memory_may_be_missing(tmp_path):
    assert checks.shared_memory(tmp_path / "missing").found == "none; not needed"
    assert checks.shared_memory(tmp_path).numbers["total"] > 0


@pytest.mark.mujoco
@pytest.mark.timeout(300)  # the first run compiles
def test_without_opengl_there_is_a_warning_with_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    found = checks.rendering()
    assert found.status == "warn"
    assert "apt-get install libegl1" in found.advice
