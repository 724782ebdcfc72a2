"""Readings of a machine, from files written by hand and from the system itself."""

import os

import pytest

from mtrl import machine


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_limit_of_group_and_parents_counts(tmp_path):
    membership = tmp_path / "membership"
    membership.write_text("0::/job/step\n")
    root = tmp_path / "cgroup"
    group(root / "job" / "step", cpu__max="max 100000\n")
    group(root / "job", cpu__max="150000 100000\n")
    assert machine.cpu_quota(root, membership) == 1.5
    group(root / "job" / "step", cpu__max="50000 100000\n")
    assert machine.cpu_quota(root, membership) == 0.5


def test_limits_of_the_first_version_count_and_its_minus_one_is_none(tmp_path):
    membership = tmp_path / "membership"
    membership.write_text("4:cpu,cpuacct:/job\n3:memory:/job\n")
    root = tmp_path / "cgroup"
    group(root / "cpu" / "job", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert machine.cpu_quota(root, membership) is None
    group(root / "cpu" / "job", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    assert machine.cpu_quota(root, membership) == 3.0


@pytest.mark.parametrize(("quota", "usable"), [(None, 4), (8.0, 4), (2.5, 2), (0.5, 1)])
def test_a_limit_of_time_below_the_cores_counts(monkeypatch, quota, usable):
    monkeypatch.setattr(machine, "allowed_cores", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_cores() == usable


def test_no_limit_and_no_groups_are_none(tmp_path):
    assert machine.cpu_quota(tmp_path, tmp_path / "missing") is None
    (tmp_path / "membership").write_text("0::/\n")
    assert machine.cpu_quota(tmp_path, tmp_path / "membership") is None


def test_space_is_what_the_system_says(tmp_path):
    found, expected = machine.space(tmp_path), os.statvfs(tmp_path)
    assert found is not None
    assert found.total == expected.f_blocks * expected.f_frsize
    assert found.free == pytest.approx(expected.f_bavail * expected.f_frsize, rel=0.05)  # others write meanwhile
    assert machine.space(tmp_path / "missing") is None


def test_timing_a_write_leaves_nothing(tmp_path):
    assert machine.fsync_seconds(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="missing"):
        machine.fsync_seconds(tmp_path / "missing")
