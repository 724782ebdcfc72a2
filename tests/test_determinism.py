"""The same command line and seed give the same numbers twice, whatever the number of workers.

For every method and network `tests/test_resume.py` holds two runs of one seed against each other.
"""
# pyright: reportAttributeAccessIssue=false

import json
import os
from pathlib import Path

import pytest
import torch

from mtrl.train import main
from scripts.compare_runs import TIMES, everything
from tests.small_runs import assert_same_state
from tests.test_train import MUJOCO, TINY, unchanged_process  # noqa: F401 - a fixture

TOY = [
    *("--env", "toy", "--total-steps", "240", "--warmup-steps", "25", "--envs-per-task", "2"),
    *("--checkpoint-every", "80", "--eval-every", "240", "--eval-goals", "2", "--log-every", "240", *TINY),
]


def run(folder: Path, *argv: str) -> tuple[list, dict]:
    """Run; return the records but for times, and every part of the last checkpoint."""
    assert main([*argv, "--run-dir", str(folder)]) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]
    assert {line["kind"] for line in records} == {"train", "evaluation"}
    return records, everything(folder)


def assert_same(a: tuple[list, dict], b: tuple[list, dict]) -> None:
    assert a[0] == b[0]
    assert a[1].keys() == {"agent", "replay", "rows", "env", "trainer"}
    assert_same_state(a[1], b[1])


@pytest.mark.parametrize(("aggregator", "network"), [("mean", "mlp"), ("aligned_ub", "multi_head")])
def test_a_run_is_the_same_twice(tmp_path, aggregator, network):
    argv = [*TOY, "--aggregator", aggregator, "--network", network]
    assert_same(run(tmp_path / "first", *argv), run(tmp_path / "second", *argv))


@pytest.fixture
def torch_as_before(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # restored afterwards; a user's own setting is kept
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.mark.usefixtures("torch_as_before")
@pytest.mark.parametrize("flag", [("--deterministic",), ("--deterministic", "true")])
def test_algorithms_that_repeat_are_asked_for_and_change_nothing_on_a_cpu(tmp_path, flag):
    plain = run(tmp_path / "plain", *TOY, "--aggregator", "aligned", "--deterministic", "False")
    assert not torch.are_deterministic_algorithms_enabled()
    assert_same(plain, run(tmp_path / "repeating", *TOY, "--aggregator", "aligned", *flag))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.gpu
@pytest.mark.usefixtures("torch_as_before")
@pytest.mark.parametrize("aggregator", ["mean", "aligned", "pcgrad", "graddrop", "it_mtl"])
def test_a_run_on_a_gpu_is_the_same_twice_and_in_parts(tmp_path, aggregator):
    argv = [*TOY, "--aggregator", aggregator, "--device", "cuda", "--deterministic"]
    whole = run(tmp_path / "whole", *argv)
    assert_same(whole, run(tmp_path / "again", *argv))
    run(tmp_path / "parts", *argv, "--total-steps", "160", "--eval-every", "160", "--log-every", "160")
    assert main(["--resume", str(tmp_path / "parts"), "--total-steps", "240"]) == 0
    assert_same_state(whole[1]["agent"], everything(tmp_path / "parts")["agent"])


def test_another_seed_changes_records_and_every_part_of_the_state(tmp_path):
    (records, parts), (others, other_parts) = (run(tmp_path / seed, *TOY, "--seed", seed) for seed in ("0", "1"))
    assert not any(a == b for a, b in zip(records, others, strict=True))
    for name, part in parts.items():
        with pytest.raises(AssertionError):
            assert_same_state(part, other_parts[name])


@pytest.mark.mujoco
def test_a_run_of_meta_world_is_the_same_with_another_number_of_workers(tmp_path):
    argv = [*MUJOCO, "--total-steps", "60", "--aggregator", "aligned", "--eval-every", "60", "--eval-goals", "1"]
    argv += ["--log-every", "20"]
    assert_same(run(tmp_path / "one", *argv, "--workers", "1"), run(tmp_path / "two", *argv, "--workers", "2"))
