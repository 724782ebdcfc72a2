"""MODULE:CLASS names a class of the user's own; what only a file names is imported where the user allows it."""

import importlib
import sys
from pathlib import Path

import pytest

from mtrl import cli, sweep
from mtrl.aggregators import make
from mtrl.flags import MODULES, UsageError
from mtrl.run_directory import claim
from tests.test_bad_input import assert_one_line

MODULE = """
from pathlib import Path
from mtrl.aggregators.mean import Mean as Mine
from mtrl.networks.mlp import MLP as Net
Path("imported").touch()
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder that holds the module own_classes, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(MODULES, raising=False)
    monkeypatch.delitem(sys.modules, "own_classes", raising=False)
    Path("own_classes.py").write_text(MODULE)
    importlib.invalidate_caches()
    return tmp_path


def was_imported() -> bool:
    return Path("imported").exists()


def save(name: str, text: str) -> Path:
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_the_command_line_names_a_class_and_its_options():
    settings = cli.read(
        ["--env", "toy", "--critic.aggregator", "own_classes:Mine", "--critic.aggregator.weights", *"1234"]
    )
    assert settings.critic_aggregator == "own_classes:Mine"
    assert settings.critic_aggregator_config.weights == (1, 2, 3, 4)
    assert settings.actor_aggregator == "mean"


def test_a_run_says_which_class_and_is_read_where_its_module_is_allowed(monkeypatch):
    settings = cli.read(["--env", "toy", "--aggregator", "own_classes:Mine"])
    save("run/config.yaml", settings.to_yaml())
    monkeypatch.setenv(MODULES, "other,own_classes")
    assert cli.load(Path("run")) == settings


@pytest.mark.parametrize("allowed", [None, "", "own", "own_classes.part", "other"])
def test_what_a_file_names_is_not_imported_unasked(monkeypatch, allowed):
    if allowed is not None:
        monkeypatch.setenv(MODULES, allowed)
    file = save("own.yaml", "env: toy\nnetwork: own_classes:Net\n")
    with pytest.raises(UsageError, match=f"{MODULES}={allowed + ',' if allowed else ''}own_classes "):
        cli.read(["--preset", str(file)])
    assert not was_imported()


def test_a_file_may_name_a_module_that_the_command_line_names_too():
    file = save("own.yaml", "env: toy\nnetwork: own_classes:Net\n")
    settings = cli.read(["--preset", str(file), "--actor.aggregator", "own_classes:Mine"])
    assert (settings.network, settings.actor_aggregator) == ("own_classes:Net", "own_classes:Mine")


def test_a_name_that_gives_way_is_not_imported():
    file = save("own.yaml", "env: toy\naggregator: own_classes:Mine\n")
    assert cli.read(["--preset", str(file), "--aggregator", "mean"]).critic_aggregator == "mean"
    assert not was_imported()


def test_resume_auto_knows_the_module_from_the_command_line():
    words = ["--env", "toy", "--aggregator", "own_classes:Mine", "--run-dir", "run", "--resume", "auto"]
    settings = cli.read(words)
    save("run/config.yaml", settings.to_yaml())
    assert cli.read(words).replaces_run


def test_folders_have_names_without_a_colon(capsys):
    assert sweep.main(["--env", "toy", "--aggregators", "mean,own_classes:Mine", "--seeds", "3", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "--run-dir sweeps/toy/mean-3 " in first
    assert "--aggregator own_classes:Mine " in second
    assert "--run-dir sweeps/toy/own_classes-Mine-3 " in second
    made = claim(cli.read(["--env", "toy", "--aggregator", "own_classes:Mine"]))
    assert made.name.startswith("toy-own_classes-Mine-0-")


def test_a_field_that_is_refused_is_named_by_its_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--env", "toy", "--aggregator", "own_classes:Mine", "--aggregator.weights", "-1", "1", "1", "1"])
    assert caught.value.code == 2
    assert_one_line(capsys.readouterr().err, ("--aggregator.weights: must be finite, non-negative",))


def test_help_shows_the_options_and_that_there_may_be_such_classes(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--env", "toy", "--aggregator", "own_classes:Mine", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "--aggregator.weights" in said
    assert said.count("MODULE:CLASS") == 3


def test_a_method_that_competes_is_no_module():
    with pytest.raises(ValueError, match="unknown aggregator 'own_classes:Mine'"):
        make("it_mtl", combined=("own_classes:Mine",))
    assert not was_imported()
