"""What docs/gymnasium.md and README.md show of Gymnasium runs as it stands there; only training is cut short."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.checkpoint import by_step
from tests.test_train import TINY

ROOT = Path(__file__).parents[1]

SHORT = [*TINY, "--total-steps", "12", "--warmup-steps", "2", "--eval-every", "0", "--workers", "1", "--run-dir", "run"]


def blocks(language: str) -> list[str]:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("docs/gymnasium.md", "README.md"))
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in dict.fromkeys(found) if "gymnasium" in block or "envs.make" in block]


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


@pytest.mark.parametrize("block", blocks("python"))
def test_python_prints_what_its_comments_say(tmp_path, block):
    (tmp_path / "shown.py").write_text(block)
    assert run(tmp_path, sys.executable, "shown.py").splitlines() == re.findall(
        r"^print\(.*\)  # (.*)$", block, re.MULTILINE
    )


@pytest.mark.mujoco
@pytest.mark.parametrize("command", [line for block in blocks("bash") for line in block.splitlines()])
def test_a_command_trains(tmp_path, command):
    for block in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
    program, *words = shlex.split(command)
    assert program == "python"
    run(tmp_path, sys.executable, *words, *SHORT)
    assert by_step(tmp_path / "run" / "checkpoints")


def test_the_page_shows_something():
    assert len(blocks("python")) >= 2
    assert len(blocks("bash")) >= 2
