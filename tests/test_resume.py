"""A run that is stopped and continued equals one that never was, bit for bit on the CPU: state, records and curves."""

from typing import Any

import pytest

from mtrl import aggregators, networks
from mtrl.aggregators.base import Need
from mtrl.checkpoint import latest, latest_whole
from mtrl.envs import toy
from mtrl.signals import StopRequest
from scripts.compare_runs import contents, differences
from tests.small_runs import NETWORKS, build, records, train, train_in_parts
from tests.test_train import MUJOCO, main, unchanged_process  # noqa: F401 - a fixture

# Vector steps are 4 environment steps; updates come from step 32 on, 19 in all; episodes last 40 environment steps.
SHORT: dict[str, Any] = {
    "total_steps": 104,
    "warmup_steps": 15,
    "log_every": 20,
    "eval_every": 40,
    "eval_goals": 1,
    "transference_every": 3,
    "checkpoint_every": 48,
}


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr(toy, "MAX_EPISODE_STEPS", 10)


def assert_same_run(whole, parts) -> None:
    """Compare everything in the last checkpoints, and all records."""
    assert differences(whole, parts) == []
    found = contents(parts)
    assert found["checkpoint"].keys() == {"agent", "replay", "rows", "env", "trainer"}
    assert len(found["TensorBoard"]) > 30
    assert len(found["pictures"]) >= 4  # cosines and transference of critic and actor


def has_its_network(aggregator, network) -> bool:
    return aggregators.make(aggregator).need != Need.REPRESENTATION or network == "multi_head"


def test_all_networks_are_tried():
    assert NETWORKS.keys() == networks.REGISTRY.keys()


@pytest.mark.parametrize(
    ("aggregator", "network"),
    [(name, network) for name in aggregators.names() for network in NETWORKS if has_its_network(name, network)],
)
def test_every_method_and_network_continues_exactly(tmp_path, aggregator, network):
    options = SHORT | {"aggregator": aggregator, "network": network}
    train(tmp_path / "whole", **options)
    train_in_parts(tmp_path / "parts", [60], **options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "stops",
    [
        [12],  # among the random steps
        [40],  # at a record and an evaluation, at the end of an episode
        [44, 48, 52],  # before, at and after a checkpoint
        [60, 80, 100, 104],  # at records of training; at the last step, before its record
    ],
)
def test_a_run_may_be_stopped_anywhere_and_often(tmp_path, stops):
    train(tmp_path / "whole", **SHORT)
    train_in_parts(tmp_path / "parts", stops, **SHORT)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_leaves_no_record_of_its_own(tmp_path):
    train_in_parts(tmp_path, [60], **SHORT | {"total_steps": 64})
    assert [line["step"] for line in records(tmp_path, "train")] == [20, 40, 60, 64]
    train_in_parts(tmp_path, [72], **SHORT)
    assert [line["step"] for line in records(tmp_path, "train")] == [20, 40, 60, 64, 80, 100, 104]


def test_a_kill_after_a_record_leaves_it_once(tmp_path):
    # The evaluation of step 80 fails, and what was learned is saved; made up for after the first start, and recorded
    # again after the second, as that start was killed before it saved.
    train(tmp_path / "whole", **SHORT)
    trainer = build(tmp_path / "parts", **SHORT)
    make_eval_env = trainer.make_eval_env

    def fail_later(tasks, copies):
        if trainer.step_count == 80:
            raise RuntimeError("worker 0 died")
        return make_eval_env(tasks, copies)

    trainer.make_eval_env = fail_later
    with pytest.raises(RuntimeError, match="worker 0 died"):
        trainer.run(StopRequest())
    trainer.close()
    resume_from = latest(tmp_path / "parts" / "checkpoints")
    assert resume_from is not None
    assert resume_from.name == f"{80:012d}"
    killed = build(tmp_path / "parts", resume_from=resume_from, **SHORT)
    killed._evaluate()
    killed.close()
    assert [line["step"] for line in records(tmp_path / "parts", "evaluation")] == [40, 80]
    train(tmp_path / "parts", resume_from=resume_from, **SHORT)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_damaged_checkpoint_costs_steps_and_no_exactness(tmp_path):
    train(tmp_path / "whole", **SHORT)
    trainer = build(tmp_path / "parts", **dict(SHORT, total_steps=60))
    trainer.run(StopRequest())
    trainer.close()
    folder = tmp_path / "parts" / "checkpoints"
    (folder / f"{60:012d}" / "env.pt").write_bytes(b"other bytes")
    with pytest.warns(UserWarning, match=r"env\.pt is damaged: .*; using the checkpoint of step 48 instead"):
        resume_from = latest_whole(folder)
    train(tmp_path / "parts", resume_from=resume_from, **SHORT)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.mujoco
def test_meta_world_continues_exactly_with_another_number_of_workers(tmp_path):
    argv = [*MUJOCO, "--aggregator", "aligned", "--eval-every", "60", "--eval-goals", "1", "--log-every", "20"]
    argv += ["--transference-every", "7", "--checkpoint-every", "44"]
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    assert main([*argv, "--total-steps", "80", "--workers", "2", "--run-dir", whole]) == 0
    assert main([*argv, "--total-steps", "60", "--workers", "2", "--run-dir", parts]) == 0
    assert main(["--resume", parts, "--total-steps", "80", "--workers", "1"]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
