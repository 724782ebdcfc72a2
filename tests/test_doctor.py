"""The doctor as a program, beside what the system says itself."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mtrl import checks, doctor, machine
from mtrl.checks import Check
from mtrl.machine import Space, usable_cores
from tests.envs.metaworld.test_rendering import why_not


@pytest.mark.mujoco
@pytest.mark.timeout(300)  # the first run compiles
def test_the_report_agrees_with_the_system_and_leaves_nothing(tmp_path):
    unset = ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "mtrl.doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    report = json.loads(done.stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert done.returncode == (0 if report["can_train"] else 2)
    assert list(tmp_path.iterdir()) == []
    assert found["torch"]["numbers"]["version"] == torch.__version__
    assert found["cores"]["numbers"]["usable"] == usable_cores()
    assert found["device"]["numbers"]["type"] == ("cuda" if torch.cuda.is_available() else "cpu")
    disk = os.statvfs(tmp_path)
    assert found["disk"]["numbers"]["free"] == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)
    assert {"memory", "/dev/shm", "cache"} <= set(found)
    assert found["rendering"]["numbers"]["works"] == (not why_not())
    if report["can_train"]:
        counts = {str(count) for count in (1, usable_cores())}
        assert set(report["speeds"]["steps"]) == counts
        assert all(set(times) == counts for times in report["speeds"]["updates"].values())
        advised = report["recommendation"]
        assert advised["preset"] == ("mt10" if torch.cuda.is_available() else "mt10_cpu")
        assert f"--workers {advised['workers']}" in advised["command"]
        assert advised["seconds"] > 0


def quick(monkeypatch, *found):
    monkeypatch.setattr(checks, "packages", list)
    monkeypatch.setattr(doctor, "_ONE_EACH", tuple((lambda check=check: check) for check in found))


def test_what_is_missing_is_code_2_and_nothing_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "space", lambda _: Space(2**20, 2**40))
    quick(monkeypatch, checks.shared_memory(tmp_path), checks.disk(tmp_path))
    assert doctor.main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["/dev/shm", "ok"]
    assert lines[1].split()[:2] == ["disk", "fail"]
    assert lines[1].endswith("; free some, or start runs elsewhere: --run-dir")
    assert lines[2:] == ["training cannot run here: disk"]


def test_a_package_that_cannot_be_imported_is_an_answer(monkeypatch, capsys):
    def device():
        raise ModuleNotFoundError("No module named 'torch'")

    quick(monkeypatch)
    monkeypatch.setattr(doctor, "_ONE_EACH", (device,))
    assert doctor.main(["--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["checks"][0]["found"] == "cannot look: No module named 'torch'"
    assert (report["can_train"], report["speeds"]) == (False, None)


def test_a_warning_alone_keeps_nobody_from_training(monkeypatch, capsys):
    quick(monkeypatch, Check(name="rendering", status="warn", found="no pictures", advice="apt-get"))
    monkeypatch.setattr(doctor, "_measure", lambda: (None, None, None))
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rendering         warn no pictures; apt-get",
        "training can run here",
    ]
