"""The command line, from the user's side: what is typed, what comes out, what is said when it cannot be."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl import aggregators, cli, configs, settings
from mtrl.flags import DEFAULTS
from mtrl.registry import resolve

ROOT = Path(__file__).parents[1]

MAIN_JOB = ["--env", "mt10", "--aggregator", "aligned"]


def refusal(capsys, *argv: object) -> str:
    """Return the message that refuses `argv`."""
    with pytest.raises(SystemExit) as caught:
        cli.parse(list(map(str, argv)))
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def write(folder: Path, text: str, name: str = "preset.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


# ---- names


def test_main_job():
    chosen = cli.parse(MAIN_JOB)
    assert (chosen.env, chosen.agent, chosen.network) == ("mt10", "mtsac", "mlp")
    assert chosen.critic_aggregator == chosen.actor_aggregator == "aligned"
    assert chosen.resume is None


def test_default_aggregator_is_the_mean():
    chosen = cli.parse(["--env", "mt10"])
    assert chosen.critic_aggregator == chosen.actor_aggregator == "mean"


def test_one_component_can_be_named_alone():
    chosen = cli.parse(["--critic.aggregator", "aligned", "--env", "mt10"])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == ("aligned", "mean")


@pytest.mark.parametrize("order", [1, -1])
def test_component_is_stronger_than_shorthand_in_any_order(order):
    flags = ["--aggregator=aligned", "--actor.aggregator=pcgrad"][::order]
    chosen = cli.parse(["--env", "mt10", *flags])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == ("aligned", "pcgrad")


@pytest.mark.parametrize("spelling", [["--total-steps", "50"], ["--total_steps", "50"], ["--total-steps=50"]])
def test_spellings_of_a_flag(spelling):
    assert cli.parse(["--env", "mt10", *spelling]).trainer.total_steps == 50


def test_last_of_repeated_flags_holds():
    assert cli.parse(["--env", "toy", "--seed", "1", "--seed", "2"]).trainer.seed == 2


@pytest.mark.parametrize("env", ["mt1:reach-v3", "mt10:reach-v3,push-v3", "reach-v3", "toy", "toy_scaled", "mt25"])
def test_environments(env):
    assert cli.parse(["--env", env]).env == env


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--env", "mt10", "--aggregator", "algned"], ["--aggregator", "'algned'", "'aligned'"]),
        (["--env", "mt10", "--network", "mlpp"], ["--network", "'mlpp'", "'mlp'"]),
        (["--env", "mt10", "--agent", "sac"], ["--agent", "'sac'", "mtsac"]),
        (["--env", "toyy"], ["--env", "'toyy'", "'toy'"]),
        (["--env", "mt10:reach"], ["--env", "'reach'", "'reach-v3'"]),
        (["--preset", "mt10_cpuu"], ["--preset", "'mt10_cpuu'", "'mt10_cpu'"]),
        (["--env"], ["--env", "expected one name", "nothing"]),
        ([], ["--env is required", "mt10"]),
        (["mt10"], ["'mt10'", "--env"]),
        (["-e", "mt10"], ["-e", "two dashes"]),
        (["--agregator", "aligned"], ["--agregator", "--aggregator"]),
    ],
)
def test_wrong_name_is_answered_with_the_nearest(capsys, argv, said):
    message = refusal(capsys, *argv)
    assert all(part in message for part in said), message


# ---- options


def test_shorthand_sets_the_option_of_both():
    chosen = cli.parse([*MAIN_JOB, "--aggregator.scale-mode", "rmse", "--actor.aggregator.scale-mode", "median"])
    assert chosen.critic_aggregator_config.scale_mode == "rmse"
    assert chosen.actor_aggregator_config.scale_mode == "median"


def test_shorthand_asks_for_the_component_when_one_lacks_the_option(capsys):
    message = refusal(capsys, "--env=mt10", "--critic.aggregator=aligned", "--aggregator.scale-mode=rmse")
    assert "actor's" in message
    assert "write --critic.aggregator.scale-mode" in message


def test_option_of_another_method_is_refused_with_its_owner(capsys):
    message = refusal(capsys, "--env=mt10", "--aggregator=pcgrad", "--aggregator.scale-mode=rmse")
    assert "'pcgrad' has no such option" in message
    assert "aligned" in message


def test_tuples_and_negative_numbers_are_values():
    chosen = cli.parse(["--env", "toy", "--network.hidden-dims", "32", "16", "--seed", "3"])
    assert chosen.network_config.hidden_dims == (32, 16)
    assert chosen.trainer.seed == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--total-step", "5"], ["--total-step:", "--total-steps"]),
        (["--gamma", "0.9"], ["--gamma", "--agent.gamma"]),
        (["--foo", "1"], ["--foo", "no such flag"]),
        (["--total-steps", "many"], ["--total-steps", "an integer", "'many'"]),
        (["--total-steps", "1", "2"], ["--total-steps", "an integer", "'1 2'"]),
        (["--total-steps"], ["--total-steps", "an integer", "nothing"]),
        (["--total-steps", "0"], ["--total-steps", "0"]),
        (["--total-steps", "-5"], ["--total-steps", "-5"]),
        (["--agent.gamma", "high"], ["--agent.gamma", "a number", "'high'"]),
        (["--agent.batch-size", "0"], ["--agent.batch-size", "0"]),
        (["--network.hidden-dims", "a"], ["--network.hidden-dims", "integers separated by spaces", "'a'"]),
        (["--network.hidden-dims", "-1"], ["--network.hidden-dims", "-1"]),
        (["--workers", "x"], ["--workers", "an integer or None"]),
        (["--device", "gpu"], ["--device", "auto, cpu, cuda", "'gpu'"]),
        (["--on-nonfinite", "rais"], ["--on-nonfinite", "Did you mean raise"]),
        (["--replay.capacity", "0"], ["--replay.capacity", "0"]),
    ],
)
def test_wrong_option_is_named_with_what_was_found_and_expected(capsys, argv, said):
    message = refusal(capsys, "--env", "mt10", *argv)
    assert all(part in message for part in said), message


# ---- presets


def test_environment_implies_its_preset():
    assert cli.parse(["--env", "mt50"]).trainer.eval_every == 1_000_000


def test_tasks_of_a_benchmark_imply_its_preset():
    assert cli.parse(["--env", "mt50:reach-v3"]).trainer.eval_every == 1_000_000


def test_later_layers_are_stronger(tmp_path):
    file = write(tmp_path, "env: toy\ntotal_steps: 5000\nseed: 7\nagent.batch_size: 16")
    chosen = cli.parse(["--preset", str(file), "--seed", "8"])
    assert chosen.env == "toy"
    assert chosen.trainer.seed == 8  # the flag
    assert chosen.trainer.total_steps == 5000  # the preset named
    assert chosen.agent_config.batch_size == 16
    assert chosen.network_config.hidden_dims == (64, 64)  # the environment's preset


def test_presets_can_follow_one_another(tmp_path):
    first = write(tmp_path, "env: toy\nseed: 1\ngoal_seed: 1", "first.yaml")
    second = write(tmp_path, "seed: 2", "second.yaml")
    chosen = cli.parse(["--preset", str(first), "--preset", str(second)])
    assert (chosen.trainer.seed, chosen.trainer.goal_seed) == (2, 1)


def test_preset_names_parts():
    chosen = cli.parse(["--preset", "mt10_cpu"])
    assert chosen.env == "mt10"
    assert chosen.network_config.hidden_dims != cli.parse(["--env", "mt10"]).network_config.hidden_dims


def test_flag_replaces_the_method_of_a_preset_and_drops_its_options(tmp_path):
    file = write(
        tmp_path, "env: toy\naggregator: aligned\naggregator.scale_mode: rmse\ncritic.aggregator.weights: [1, 2]"
    )
    chosen = cli.parse(["--preset", str(file), "--aggregator", "mean"])
    assert chosen.critic_aggregator_config == cli.parse(["--env", "toy"]).critic_aggregator_config


def test_sizes_of_a_preset_hold_for_another_network():
    chosen = cli.parse(["--preset", "mt10_cpu", "--network", "multi_head"])
    assert chosen.network == "multi_head"
    assert chosen.network_config.hidden_dims == cli.parse(["--preset", "mt10_cpu"]).network_config.hidden_dims


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("totl_steps: 5", ["--totl-steps", "--total-steps"]),
        ("total_steps: many", ["--total-steps", "an integer", "'many'"]),
        ("agent: {gama: 1}", ["--agent.gama", "--agent.gamma"]),
        ("aggregator: algned", ["--aggregator", "'aligned'"]),
        ("agent.batch_size: -3", ["--agent.batch-size", "-3"]),
        ("preset: mt10", ["preset belongs on the command line"]),
    ],
)
def test_mistake_in_a_file_is_answered_with_its_name(capsys, tmp_path, text, said):
    file = write(tmp_path, text)
    message = refusal(capsys, "--env", "toy", "--preset", file)
    assert str(file) in message
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    "argv",
    [
        MAIN_JOB,
        ["--env", "mt10:reach-v3,push-v3", "--critic.aggregator", "aligned", "--critic.aggregator.scale-mode", "rmse"],
        ["--env", "mt10:reach-v3,push-v3", "--aggregator.weights", "1e-3", "2", "--network", "multi_head"],
        ["--env", "toy", "--run-dir", "runs/a", "--agent.critic-lr", "1e-5", "--workers", "3", "--device", "cpu"],
        ["--preset", "mt10_cpu", "--network.hidden-dims", "8"],
    ],
)
def test_saved_settings_read_back_identical_but_for_the_folder_of_the_run(tmp_path, argv):
    chosen = cli.parse(argv)
    file = write(tmp_path, chosen.to_yaml(), "config.yaml")
    chosen = dataclasses.replace(chosen, trainer=dataclasses.replace(chosen.trainer, run_dir=None))
    assert cli.parse(["--preset", str(file)]) == chosen
    assert cli.parse(["--preset", str(file)]).to_yaml() == chosen.to_yaml()
    assert cli.load(tmp_path) == chosen


# ---- resume


def test_resume_takes_the_settings_of_the_run(tmp_path):
    started = cli.parse([*MAIN_JOB, "--seed", "5"])
    write(tmp_path, started.to_yaml(), "config.yaml")
    resumed = cli.parse(["--resume", str(tmp_path), "--total-steps", "123", "--workers", "1"])
    assert resumed.resume == tmp_path
    assert (resumed.trainer.seed, resumed.trainer.total_steps, resumed.trainer.workers) == (5, 123, 1)
    assert resumed.critic_aggregator == "aligned"


@pytest.mark.parametrize("flag", ["--seed", "--env", "--aggregator", "--agent.gamma", "--preset"])
def test_resume_refuses_what_would_change_the_run(capsys, tmp_path, flag):
    write(tmp_path, cli.parse(MAIN_JOB).to_yaml(), "config.yaml")
    message = refusal(capsys, "--resume", tmp_path, flag, "mt10")
    assert flag in message
    assert "--total-steps" in message


def test_resume_without_a_run_says_what_was_expected(capsys, tmp_path):
    message = refusal(capsys, "--resume", tmp_path)
    assert str(tmp_path) in message
    assert "config.yaml" in message


# ---- impossible combinations


def test_weights_must_match_the_tasks(capsys):
    message = refusal(capsys, "--env=mt10:reach-v3,push-v3", "--actor.aggregator.weights", 1, 2, 3)
    assert "--actor.aggregator" in message
    assert "2 tasks" in message


def test_weights_are_compared_with_the_tasks_of_every_suite(capsys):
    assert "4 tasks" in refusal(capsys, "--env", "toy", "--aggregator", "aligned", "--aggregator.weights", 1, 2)


def test_task_of_the_toy_suite_must_exist(capsys):
    assert "Did you mean 'reach-east'" in refusal(capsys, "--env", "toy:reach-eats")


def test_no_more_goals_can_be_evaluated_than_there_are(capsys):
    assert "--eval-goals: expected at most 50" in refusal(capsys, "--env", "toy", "--eval-goals", 51)


@pytest.mark.parametrize("flag", ["--device", "--replay.device"])
def test_cuda_is_refused_where_there_is_none(capsys, monkeypatch, flag):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert f"{flag}: expected auto or cpu" in refusal(capsys, "--env", "toy", flag, "cuda")


def test_preset_without_a_name_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--env", "toy", "--preset"])
    assert caught.value.code == 2
    assert "--preset: expected a name" in capsys.readouterr().err


def test_used_run_dir_is_refused_with_the_way_out(capsys, tmp_path):
    write(tmp_path, "", "config.yaml")
    assert f"--resume {tmp_path}" in refusal(capsys, "--env", "toy", "--run-dir", tmp_path)


def test_run_dir_that_cannot_be_looked_at_is_refused(capsys, tmp_path):
    said = refusal(capsys, "--env", "toy", "--run-dir", tmp_path / ("long" * 100))
    assert "--run-dir: cannot use" in said
    assert "name too long" in said


def test_empty_run_dir_is_accepted(tmp_path):
    assert cli.parse(["--env", "toy", "--run-dir", str(tmp_path)]).trainer.run_dir == tmp_path
    write(tmp_path, "", "lock")  # all that a run leaves that was refused while it was set up
    assert cli.parse(["--env", "toy", "--run-dir", str(tmp_path)]).trainer.run_dir == tmp_path


@pytest.mark.parametrize("name", ["a b", "a;b", "ä*", "a\nb"])
def test_strange_run_name_is_refused(capsys, tmp_path, name):
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--env", "toy", "--run-dir", str(tmp_path / name)])
    assert caught.value.code == 2
    assert "--run-dir" in capsys.readouterr().err


def test_run_dir_that_is_a_file_is_refused(capsys, tmp_path):
    assert "is a file" in refusal(capsys, "--env", "toy", "--run-dir", write(tmp_path, "", "run"))


# ---- help, and what it may import


def help_text(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.parse([*argv, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_short_help_lists_the_names(capsys):
    text = help_text(capsys)
    assert all(name in text for name in ("mt10", *aggregators.REGISTRY, *configs.names(), "--resume"))
    assert len(text.splitlines()) <= 40


def test_full_help_lists_every_flag_with_its_value(capsys):
    text = help_text(capsys, *MAIN_JOB, "--seed", "41", "--actor.aggregator.scale-mode", "rmse")
    names = DEFAULTS | {"critic.aggregator": "aligned", "actor.aggregator": "aligned"}
    shorthands = {"--aggregator.scale-mode", "--aggregator.weights", "--aggregator.rank-eps"}
    for flag in set(settings.valid_flags(names)) - shorthands:
        assert re.search(rf"^  {re.escape(flag)} ", text, re.MULTILINE), flag
    assert "--seed 41 " in text
    assert "--actor.aggregator.scale-mode rmse" in text


def test_full_help_joins_equal_aggregators(capsys):
    text = help_text(capsys, *MAIN_JOB)
    assert "  --aggregator.scale-mode min" in text
    assert "--critic.aggregator.scale-mode" not in text


@pytest.mark.parametrize("name", aggregators.REGISTRY)
def test_full_help_shows_the_options_of_the_chosen_method_and_of_no_other(capsys, name):
    text = help_text(capsys, "--env", "toy", "--critic.aggregator", name)
    shown = re.findall(r"^  --critic\.aggregator\.(\S+) ", text, re.MULTILINE)
    shown += re.findall(r"^  --aggregator\.(\S+) ", text, re.MULTILINE) if name == "mean" else []
    fields = dataclasses.fields(resolve(aggregators.REGISTRY, "aggregator", name).Config)
    assert shown == [field.name.replace("_", "-") for field in fields]


def test_help_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    text = help_text(capsys, "--env", "mt10")
    flags = [line for line in text.splitlines() if line.startswith("  ")]
    assert max(map(len, flags)) <= 80


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        [],
        ["--env", "mt11"],
        ["--env", "mt10", "--aggregator", "algned"],
        ["--env", "mt10", "--preset", "nothing"],
        ["--resume", "nowhere"],
    ],
)
def test_names_are_answered_without_torch(argv):
    code = (
        "import sys\nfrom mtrl import cli\n"
        "try:\n    cli.parse(sys.argv[1:])\n"
        "except SystemExit as end:\n    sys.exit(9 if {'torch', 'mujoco', 'numpy'} & sys.modules.keys() else end.code)"
    )
    result = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, check=False)
    assert result.returncode == (0 if argv == ["--help"] else 2), result


def test_the_command_line_has_not_grown():
    """A new flag is a promise: add it to the file on purpose. Options of other methods are theirs alone."""
    pinned = (ROOT / "tests" / "cli_flags.txt").read_text().split()
    assert sorted(settings.valid_flags(DEFAULTS)) == pinned
