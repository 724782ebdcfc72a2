"""Whatever is typed or read wrongly: code 2, one line that says what was found and expected, nothing changed."""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtrl import doctor, evaluate, export, group, manifest, record, sweep, train
from mtrl.files import Digest
from mtrl.manifest import Manifest
from mtrl.report import __main__ as report
from tests.bad_input import FILES, TABLE

MAIN = {
    "train": train.main,
    "evaluate": evaluate.main,
    "group": group.main,
    "report": report.main,
    "record": record.main,
    "export": export.main,
    "sweep": sweep.main,
    "doctor": doctor.main,
}


def rows() -> list[tuple[str, ...]]:
    lines = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
    return [tuple(part.strip() for part in line.split(" | ")) for line in lines]


def words(line: str) -> list[str]:
    """Split as a shell does, with $'...' for escapes."""
    found = []
    for word in shlex.split(line.replace("LONG", "long" * 100).replace("$'", "'\\$")):
        is_escaped = word.startswith("\\$")
        found.append(word.removeprefix("\\$").encode().decode("unicode_escape") if is_escaped else word)
    return found


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    """Return everything in the folder by its path, files by what is in them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def assert_one_line(printed: str, said: tuple[str, ...]) -> None:
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1, printed
    assert printed[:-1].isprintable()
    for part in said:
        assert part in printed, printed


def test_the_table_is_long_and_repeats_nothing():
    lines = [line for line, *_ in rows()]
    assert len(lines) == len(set(lines)) >= 60


@pytest.mark.parametrize(("line", "said"), [(line, said) for line, *said in rows()], ids=[row[0] for row in rows()])
def test_bad_input_is_refused_in_one_line_and_changes_nothing(capfd, place, line, said):
    before = tree(place)
    program, *argv = words(line)
    with pytest.raises(SystemExit) as caught:
        MAIN[program](argv)
    assert caught.value.code == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert_one_line(printed.err, said)
    assert tree(place) == before


@pytest.mark.parametrize(
    "line",
    [
        "train --env mt11",
        "train --env toy --preset tag.yaml",
        "evaluate run --goal 3",
        "group odd_metrics --groups 2",
    ],
)
def test_bad_input_of_a_real_process(place, line):
    (said,) = (said for found, *said in rows() if found == line)
    before = tree(place)
    program, *argv = words(line)
    path = os.pathsep.join([str(Path(train.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-B", "-m", f"mtrl.{program}", *argv],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert_one_line(result.stderr, tuple(said))
    assert tree(place) == before


def test_a_program_in_place_of_a_checkpoint_is_not_run(capfd, place):
    class Program:
        def __reduce__(self):
            return os.system, (f"touch {place}/executed",)

    checkpoint = place / "run" / "checkpoints" / "000000000100"
    checkpoint.mkdir()
    torch.save(Program(), checkpoint / "agent.pt")
    content = (checkpoint / "agent.pt").read_bytes()
    digest = Digest(len(content), hashlib.sha256(content).hexdigest())  # as one who means harm would write it
    manifest.write(checkpoint, Manifest(step=100, files={"agent.pt": digest}))
    before = tree(place)
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["run"])
    assert caught.value.code == 2
    assert "agent.pt" in capfd.readouterr().err
    assert tree(place) == before


def test_a_place_without_permission_is_refused(capfd, place):
    locked = place / "locked"
    locked.mkdir(mode=0)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    with pytest.raises(SystemExit) as caught:
        train.main(["--env", "toy", "--run-dir", str(locked / "run")])
    assert caught.value.code == 2
    assert_one_line(capfd.readouterr().err, ("--run-dir: cannot use", "Permission denied"))
