"""Exported policies: the files load without this package, and act as the agent does."""

import math
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mtrl import checkpoint, cli, envs, export, train
from mtrl.agents.mtsac import MTSAC
from mtrl.agents.policy import policy_of
from mtrl.assembly import load_agent, make_agent
from mtrl.checkpoint import by_step
from mtrl.cli import load
from mtrl.export import _largest
from mtrl.interfaces import Batch, EnvSpec
from scripts import drive_stock
from tests.agents.small_agent import CPU, NUM_TASKS, OBS_DIM, batch_for, build, every_network
from tests.test_group import as_before

for package in export.PACKAGES:
    pytest.importorskip(package, reason=f"{package} of the extra export is not installed")

TASKS = ("reach-v3", "drawer-close-v3")

FLAGS = [
    *("--env", f"mt10:{','.join(TASKS)}", "--workers", "1", "--device", "cpu", "--network.hidden-dims", "8", "7"),
    *("--agent.batch-size", "8", "--agent.min-obs-std", "0.05", "--agent.actor-lr", "0.01"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that has learned from two batches of noise, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = cli.parse(FLAGS)
    spec = EnvSpec(
        task_names=TASKS,
        envs_per_task=1,
        obs_dim=39,
        action_dim=4,
        max_episode_steps=500,
        num_goals=envs.num_goals("mt10"),
    )
    agent = make_agent(settings, spec, CPU)
    generator = torch.Generator().manual_seed(0)
    for step in (40, 60):
        obs, next_obs = torch.randn(2, len(TASKS), 8, 39, generator=generator)
        action, reward = (
            torch.rand(len(TASKS), 8, 4, generator=generator),
            torch.rand(len(TASKS), 8, generator=generator),
        )
        task = torch.arange(len(TASKS))[:, None].expand(-1, 8)
        agent.update(Batch(obs, action, reward, next_obs, torch.zeros_like(reward), task))
        checkpoint.save(folder / "checkpoints", step, {"agent": agent.state_dict()})
    (folder / "config.yaml").write_text(settings.to_yaml())
    assert export.main([str(folder)]) == 0
    return folder


def agent_of(run: Path) -> MTSAC:
    agent = load_agent(load(run), max(by_step(run / "checkpoints").items())[1])
    assert isinstance(agent, MTSAC)
    return agent


@pytest.fixture(scope="module")
def agent(run) -> MTSAC:
    return agent_of(run)


def observations(num_rows: int, num_tasks: int, obs_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(num_rows, obs_dim, generator=generator)
    return obs, torch.randint(num_tasks, (num_rows,), generator=generator)


def by_agent(agent: MTSAC, obs: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """Return the actions row by row, each from a batch in which every task is shown the observation."""
    rows = [
        agent.act_deterministic(row.expand(len(agent.tasks), 1, -1))[index, 0]
        for row, index in zip(obs, task, strict=True)
    ]
    return torch.stack(rows)


def refusal(capsys, *argv: object) -> str:
    with pytest.raises(SystemExit) as caught:
        export.main([str(word) for word in argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


# ---- the module


@every_network
@pytest.mark.parametrize("min_obs_std", [None, 0.1])
def test_the_module_acts_as_the_agent_whatever_task_each_row_has(network_name, min_obs_std):
    agent = build(network_name, "mean", min_obs_std=min_obs_std, actor_lr=0.1)
    for seed in range(3):
        agent.update(batch_for(seed))
    obs, task = observations(20, NUM_TASKS, OBS_DIM)
    expected = by_agent(agent, obs, task)
    assert torch.allclose(policy_of(agent)(obs, task), expected, atol=1e-6)  # rounding of another batch shape
    others = by_agent(agent, obs, (task + 1) % NUM_TASKS)
    assert (others - expected).abs().max() > 0.01  # or the task would not matter here


def test_the_module_is_a_copy():
    agent = build()
    policy, (obs, task) = policy_of(agent), observations(4, NUM_TASKS, OBS_DIM)
    before = policy(obs, task)
    agent.update(batch_for())
    assert torch.equal(policy(obs, task), before)


# ---- the files of a run


@pytest.mark.mujoco
def test_files_and_what_they_say(run):
    names = ["config.yaml", "policy.onnx", "policy.pt2", "policy.safetensors"]
    assert sorted(file.name for file in (run / "export").iterdir()) == names
    assert len({(run / "export" / name).stat().st_mode for name in names}) == 1  # who may read one may read all
    config = yaml.safe_load((run / "export" / "config.yaml").read_text())
    assert config["task_names"] == list(TASKS)
    assert (config["obs_dim"], config["action_dim"], config["step"], config["is_standardized"]) == (39, 4, 60, True)
    assert config["network_config"] == {"hidden_dims": [8, 7], "task_input": "one_hot"}
    assert config["versions"]["torch"] == torch.__version__
    assert config["largest_difference"]["policy.pt2"] <= 1e-6


@pytest.mark.mujoco
@pytest.mark.parametrize("num_rows", [1, 2, 33])
def test_the_torch_program_is_the_module_bit_for_bit_and_onnx_to_rounding(run, agent, num_rows):
    import onnxruntime

    obs, task = observations(num_rows, len(TASKS), 39)
    policy = policy_of(agent)
    assert torch.equal(torch.export.load(run / "export" / "policy.pt2").module()(obs, task), policy(obs, task))
    session = onnxruntime.InferenceSession(run / "export" / "policy.onnx", providers=["CPUExecutionProvider"])
    (action,) = session.run(None, {"obs": obs.numpy(), "task": task.numpy()})
    assert np.allclose(np.asarray(action), by_agent(agent, obs, task), atol=1e-6)


@pytest.mark.mujoco
def test_the_tensors_give_the_actions_by_the_formula(run, agent):
    from safetensors.numpy import load_file

    tensors = load_file(run / "export" / "policy.safetensors")
    obs, task = observations(9, len(TASKS), 39)
    x = (obs.numpy() - tensors["standardizer.mean"]) / tensors["standardizer.std"]
    x = np.concatenate([x, np.eye(len(TASKS), dtype=np.float32)[task]], axis=1)
    for layer in ("hidden.0", "hidden.1"):
        x = np.maximum(x @ tensors[f"shared.{layer}.weight"].T + tensors[f"shared.{layer}.bias"], 0)
    mean = (x @ tensors["shared.output.weight"].T + tensors["shared.output.bias"])[:, :4]
    assert np.allclose(np.tanh(mean), by_agent(agent, obs, task), atol=1e-6)


@pytest.mark.mujoco
def test_the_example_has_our_episode_in_a_stock_environment(run):
    assert_example_has_our_episode(run, "drawer-close-v3", goal=3)


@pytest.mark.slow
@pytest.mark.mujoco
def test_the_example_has_the_episode_of_a_trained_run(tmp_path):
    argv = ["--warmup-steps", "20", "--total-steps", "100", "--eval-every", "0", "--log-every", "100"]
    with as_before():
        assert train.main([*FLAGS, *argv, "--run-dir", str(tmp_path / "run")]) == 0
    assert export.main([str(tmp_path / "run")]) == 0
    assert_example_has_our_episode(tmp_path / "run", "reach-v3", goal=0)


def assert_example_has_our_episode(run: Path, task_name: str, goal: int) -> None:
    steps = drive_stock.drive(run / "export", task_name, goal)
    assert len(steps) == 500
    agent, index = agent_of(run), TASKS.index(task_name)
    obs, actions = (torch.stack(column) for column in list(zip(*steps, strict=True))[:2])
    assert np.allclose(actions, by_agent(agent, obs, torch.full((500,), index)), atol=1e-6)
    assert actions.std(0).max() > 1e-4

    with closing(envs.make(f"mt1:{task_name}", workers=1)) as env:
        ours = env.reset(np.array([[goal]]))
        for row, action, success in steps:
            assert np.array_equal(ours[0, 0], row)
            step = env.step(action.numpy()[None, None])
            assert bool(step.success[0, 0]) == success
            ours = step.obs


@pytest.mark.slow
@pytest.mark.mujoco
def test_the_example_needs_nothing_of_this_package(run):
    code = "import runpy, sys; sys.modules['mtrl'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    code = f"import sys; del sys.argv[0]; {code.replace('sys.argv[1]', 'sys.argv[0]')}"
    found = subprocess.run(
        [sys.executable, "-c", code, drive_stock.__file__, run / "export", "reach-v3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout in ("reach-v3: 500 steps, not solved\n", "reach-v3: 500 steps, solved\n"), found.stderr


@pytest.mark.slow
@pytest.mark.mujoco
def test_an_earlier_checkpoint_into_another_folder(capsys, run, tmp_path):
    assert export.main([str(run), "--checkpoint", "40", "--output", str(tmp_path / "new")]) == 0
    assert f"written to {tmp_path / 'new'}; largest difference of an action: policy.pt2 " in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())["step"] == 40
    obs, task = observations(3, len(TASKS), 39)
    actions = [
        torch.export.load(folder / "policy.pt2").module()(obs, task) for folder in (tmp_path / "new", run / "export")
    ]
    assert not torch.equal(*actions)


# ---- refusals


def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path):
    assert "is no run" in refusal(capsys, tmp_path)


@pytest.mark.mujoco
def test_a_checkpoint_that_is_not_there_is_refused(capsys, run):
    assert "has no checkpoint of step 7, only of 40, 60" in refusal(capsys, run, "--checkpoint", 7)


def test_a_missing_package_is_named_with_its_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    assert refusal(capsys, tmp_path) == ('error: export needs no_such_package: pip install "mtrl-aligned[export]"\n')


@pytest.mark.slow
@pytest.mark.mujoco
def test_files_that_act_otherwise_are_not_written(capsys, monkeypatch, run, tmp_path):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert "policy.pt2 differs from the agent's actions by" in refusal(capsys, run, "--output", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_difference_that_is_not_a_number_is_the_largest():
    assert _largest(torch.zeros(2), torch.tensor([[-3.0, 1.0]])) == 3.0
    assert math.isnan(_largest(torch.zeros(2), torch.tensor([0.0, math.nan]), torch.ones(1)))


def test_the_files_of_a_run_are_never_overwritten(capsys, run):
    before = (run / "config.yaml").read_text()
    for folder in (run, run / "export" / ".."):
        assert "is the folder of a run" in refusal(capsys, run, "--output", folder)
    assert (run / "config.yaml").read_text() == before
