"""A file of records on a disk that is full for a while."""

import errno
import os

import pytest

from mtrl.append_file import AppendFile
from tests.full_disk import FullDisk


@pytest.fixture
def problems() -> list[OSError]:
    return []


@pytest.fixture
def file(tmp_path, problems) -> AppendFile:
    return AppendFile(tmp_path / "log", 0, problems.append)


def content(file: AppendFile) -> bytes:
    return file.path.read_bytes()


def test_what_is_appended_is_there_at_once(file, problems):
    file.append(b"one ")
    assert content(file) == b"one "
    file.append(b"two")
    assert file.flush() == 7
    file.close()
    assert content(file) == b"one two"
    assert not problems


def test_what_stands_beyond_the_size_is_cut_off(tmp_path, problems):
    (tmp_path / "log").write_bytes(b"one two thr")
    file = AppendFile(tmp_path / "log", 4, problems.append)
    file.append(b"2")
    file.close()
    assert content(file) == b"one 2"


def test_a_file_shorter_than_the_size_stays(tmp_path, problems):
    (tmp_path / "log").write_bytes(b"one")
    AppendFile(tmp_path / "log", 4, problems.append).close()
    assert (tmp_path / "log").read_bytes() == b"one"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_nothing_is_lost_where_the_disk_is_full_for_a_while(monkeypatch, file, problems, number):
    disk = FullDisk(monkeypatch, 5, number)
    file.append(b"one ")
    file.append(b"two ")  # stops within the record
    file.append(b"three ")
    assert content(file) == b"one t"
    assert [(problem.errno, problem.filename) for problem in problems] == [(number, str(file.path))] * 2
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        file.flush()
    assert caught.value.filename == str(file.path)
    disk.room = 100
    file.append(b"four")
    assert content(file) == b"one two three four"
    assert file.flush() == 18


def test_closing_on_a_full_disk_reports_and_ends(monkeypatch, file, problems):
    FullDisk(monkeypatch)
    file.append(b"one")
    file.close()
    assert len(problems) == 2
    assert content(file) == b""


def test_a_disk_that_fails_late_is_named(monkeypatch, file):
    def fail(descriptor):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", fail)
    file.append(b"one")
    with pytest.raises(OSError, match="quota") as caught:
        file.flush()
    assert caught.value.filename == str(file.path)
