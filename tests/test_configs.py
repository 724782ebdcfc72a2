"""Preset files: every shipped one gives a run, and the file format has no surprises."""

import dataclasses

import pytest

from mtrl import cli, configs, envs


@pytest.mark.parametrize("name", configs.names())
def test_preset_gives_settings(name):
    settings = cli.parse(["--preset", name])
    env = name.removesuffix("_cpu")
    assert settings.env == env or env not in envs.names()


@pytest.mark.parametrize("name", configs.names())
def test_reading_and_building_leave_the_preset_alone(name):
    before = configs.find(name).read_bytes()
    first = cli.parse(["--preset", name])
    assert cli.parse(["--preset", name]) == first
    assert configs.find(name).read_bytes() == before


@pytest.mark.parametrize("name", configs.names())
def test_preset_sets_nothing_twice_and_no_seed(name):
    preset = configs.read(configs.find(name))
    assert not {"seed", "goal_seed", "run_dir", "device"} & preset.keys()


def test_legacy_is_the_published_setting():
    settings = cli.parse(["--preset", "legacy", "--aggregator", "cagrad"])
    assert settings.env_config.limits() == {"max_episode_steps": 150, "num_goals": 1}
    assert (settings.trainer.eval_goals, settings.trainer.warmup_steps) == (1, 1500)
    assert (settings.agent_config.temperatures, settings.agent_config.max_grad_norm) == ("shared", float("inf"))
    assert (settings.network_config.task_input, settings.network_config.hidden_dims) == ("none", (400, 400, 400))
    assert settings.replay.reward_normalization == "running"


def test_settings_cannot_be_changed():
    settings = cli.parse(["--env", "toy"])
    for config in (settings, *settings.configs().values()):
        assert dataclasses.is_dataclass(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.env = "mt10"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent.critic_lr: 1e-3", {"agent.critic_lr": ("1e-3",)}),  # YAML would read a text
        ("agent.critic-lr: 0.1", {"agent.critic_lr": ("0.1",)}),
        ("workers: null", {"workers": ("None",)}),
        ("workers:", {"workers": ("None",)}),
        ("network.hidden_dims: [64, 32]", {"network.hidden_dims": ("64", "32")}),
        ("critic:\n  aggregator:\n    scale_mode: min", {"critic.aggregator.scale_mode": ("min",)}),
        ("flag: no", {"flag": ("no",)}),  # YAML would read False
        ("flag: true", {"flag": ("True",)}),
        ("agent.limit: .inf", {"agent.limit": ("inf",)}),
        ("# nothing", {}),
    ],
)
def test_values_are_the_words_of_the_file(tmp_path, text, expected):
    file = tmp_path / "preset.yaml"
    file.write_text(text)
    assert configs.read(file) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- env", "key: value"),
        ("env", "key: value"),
        ("env: [mt10", "is not YAML"),
        ("a: [[1, 2]]", "a must be a value or a list of values"),
        ("a.b: 1\na:\n  b: 2", "sets a.b twice"),
    ],
)
def test_malformed_file_is_refused_by_name(tmp_path, text, message):
    file = tmp_path / "preset.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        configs.read(file)
    assert str(file) in str(caught.value)
