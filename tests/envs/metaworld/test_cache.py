"""What the cache returns is what was saved, and the state of the disk stops nobody."""

import os
import pwd
import resource
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtrl.envs.metaworld import cache
from mtrl.envs.metaworld.cache import CODE_CHOOSERS, Store, arithmetic, cache_folder, fingerprint, origin

PAYLOAD = bytes(range(64))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "mtrl"


def without_home(monkeypatch):
    """Become a user of a container who is in no list of users."""

    def unknown(_):
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@contextmanager
def full_disk():
    """Let the system refuse every byte of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_later_store_loads_what_was_saved(root):
    Store("folder/of-one").save("name", PAYLOAD)
    assert Store("folder/of-one").load("name") == PAYLOAD
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["name"]


def test_nothing_is_loaded_from_an_empty_cache():
    assert Store("folder").load("name") is None


def test_every_flipped_bit_is_detected(root):
    store = Store("folder")
    store.save("name", PAYLOAD)
    file = root / "folder" / "name"
    content = file.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        assert store.load("name") is None
    file.write_bytes(content)
    assert store.load("name") == PAYLOAD


def test_a_shortened_or_longer_file_is_detected_and_replaced(root):
    store = Store("folder")
    store.save("name", PAYLOAD)
    file = root / "folder" / "name"
    content = file.read_bytes()
    for damaged in [content[:length] for length in range(len(content))] + [content + b"\0"]:
        file.write_bytes(damaged)
        assert store.load("name") is None
    store.save("name", PAYLOAD)
    assert store.load("name") == PAYLOAD


def test_a_file_from_another_place_is_not_taken(root):
    store, other = Store("resets-1/push-v3"), Store("resets-2/push-v3")
    store.save("name", PAYLOAD)
    kept = root / "resets-1" / "push-v3" / "name"
    (root / "resets-2" / "push-v3" / "name").write_bytes(kept.read_bytes())
    (root / "resets-1" / "push-v3" / "other").write_bytes(kept.read_bytes())
    assert other.load("name") is None
    assert store.load("other") is None
    assert store.load("name") == PAYLOAD


def test_a_folder_in_the_place_of_a_file_costs_a_warning(root):
    (root / "folder" / "name").mkdir(parents=True)
    store = Store("folder")
    assert store.load("name") is None
    with pytest.warns(RuntimeWarning, match="Is a directory"):
        store.save("name", PAYLOAD)
    assert list((root / "folder").iterdir()) == [root / "folder" / "name"]  # and no draft


def test_a_full_disk_costs_one_warning_and_no_file_that_is_there(root):
    store = Store("folder")
    store.save("old", PAYLOAD)
    with full_disk():
        with pytest.warns(RuntimeWarning, match="File too large; XDG_CACHE_HOME names another place"):
            store.save("new", PAYLOAD)
        store.save("old", b"")
    assert store.load("new") is None
    assert store.load("old") == PAYLOAD
    assert [path.name for path in (root / "folder").iterdir()] == ["old"]


def test_a_place_that_is_no_folder_costs_one_warning(root):
    root.parent.write_text("a file")
    with pytest.warns(RuntimeWarning, match="cannot make .*xdg/mtrl"):
        store = Store("folder")
    store.save("name", PAYLOAD)
    with store.alone():
        assert store.load("name") is None


def test_a_folder_that_may_not_be_written_costs_one_warning(root, monkeypatch):
    Store("folder").save("name", PAYLOAD)
    monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (root / "folder", os.W_OK))  # root may
    with pytest.warns(RuntimeWarning, match="cannot write in .*xdg/mtrl"):
        store = Store("folder")
    store.save("name", b"")
    assert store.load("name") is None


def test_equal_warnings_of_one_process_are_shown_once(root):
    root.parent.write_text("a file")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            Store("folder")
    assert len(found) == 1


def test_a_user_without_home_keeps_nothing(monkeypatch):
    without_home(monkeypatch)
    with pytest.warns(RuntimeWarning, match="no home"):
        store = Store("folder")
    store.save("name", PAYLOAD)
    with store.alone():
        assert store.load("name") is None


def test_a_user_without_home_compiles_kernels(tmp_path):
    code = """
import pwd
def unknown(_): raise KeyError
pwd.getpwuid = unknown
import numpy as np
from mtrl.envs.metaworld.kernels.arithmetic import length
print(length(np.array([2.0, 3.0, 6.0])))
"""
    clean = {
        name: value for name, value in os.environ.items() if name not in {"HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"}
    }
    run = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert float(run.stdout) == 7  # 4 + 9 + 36 = 49
    assert "no home" in run.stderr


def test_the_cache_lies_in_home_where_nothing_else_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("name") == tmp_path / ".cache" / "mtrl" / "name"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # counts as not set
    assert cache_folder("name") == tmp_path / ".cache" / "mtrl" / "name"


def test_a_fingerprint_tells_contents_and_facts_apart(tmp_path):
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    files[0].write_text("12")
    files[1].write_text("3")
    first = fingerprint(files, "facts")
    assert first == fingerprint(reversed(files), "facts")
    assert first != fingerprint(files, "others")
    files[0].write_text("1")
    files[1].write_text("23")  # the same bytes in a row
    assert first != fingerprint(files, "facts")


def test_an_edited_meta_world_or_source_has_another_origin(tmp_path, monkeypatch):
    package = tmp_path / "metaworld"
    (package / "assets").mkdir(parents=True)
    for name, text in (("__init__.py", "a = 1"), ("assets/scene.xml", "<a/>"), ("assets/mesh.stl", "12")):
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def now(*sources):
        origin.cache_clear()
        cache._metaworld.cache_clear()
        return origin(*sources)

    monkeypatch.delitem(sys.modules, "metaworld", raising=False)
    found = [now(), now("cache.py"), now("cache.py", "snapshot.py")]
    for name, text in (("__init__.py", "a = 2"), ("assets/scene.xml", "<b/>"), ("assets/mesh.stl", "123")):
        (package / name).write_text(text)
        found.append(now())
    assert len(set(found)) == len(found)
    assert now() == found[-1]
    monkeypatch.undo()
    now()


@pytest.mark.parametrize("name", CODE_CHOOSERS)
def test_arithmetic_knows_versions_and_what_chooses_code(name, monkeypatch):
    before = arithmetic()
    assert before == arithmetic()
    monkeypatch.setenv(name, "other")
    assert before != arithmetic()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_arithmetic_knows_the_instructions_of_the_processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    instructions = next(line for line in lines if line.startswith(("flags", "Features")))
    assert instructions in arithmetic().splitlines()
    assert not [line for line in arithmetic().splitlines() if line.startswith(("cpu MHz", "bogomips"))]  # they vary
