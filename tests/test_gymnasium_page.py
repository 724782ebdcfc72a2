"""What docs/gymnasium.md shows runs as it stands there; only training is cut short."""

import pytest

from mtrl.checkpoint import by_step
from tests.pages import blocks, commands, printed, run, write_modules
from tests.test_train import TINY

PAGE = "docs/gymnasium.md"

SHORT = [*TINY, "--total-steps", "12", "--warmup-steps", "2", "--eval-every", "0", "--workers", "1", "--run-dir", "run"]


@pytest.mark.parametrize("block", blocks(PAGE, "python"))
def test_python_prints_what_its_comments_say(tmp_path, block):
    (tmp_path / "shown.py").write_text(block)
    assert run(tmp_path, "shown.py").splitlines() == printed(block)


@pytest.mark.mujoco
@pytest.mark.parametrize("words", [words for words in commands(PAGE) if words[0] == "mtrl.train"], ids=str)
def test_a_command_trains(tmp_path, words):
    write_modules(tmp_path, PAGE)
    run(tmp_path, "-m", *words, *SHORT)
    assert by_step(tmp_path / "run" / "checkpoints")


def test_the_page_shows_something():
    assert len(blocks(PAGE, "python")) >= 2
    assert len(commands(PAGE)) >= 2
