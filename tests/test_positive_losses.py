"""Methods that need positive losses serve the critic: an actor's losses are negative."""

import pytest

from mtrl import aggregators, cli

NEEDY = [name for name in aggregators.names() if aggregators.make(name).needs_positive_losses]
OTHERS = [name for name in aggregators.names() if name not in NEEDY]

TOY = ["--env", "toy", "--device", "cpu"]


def refusal(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.parse([*TOY, *argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_these_need_positive_losses():
    assert {"db_mtl", "dwa", "famo", "imtl_l", "moco", "scale_invariant"} <= set(NEEDY)
    assert {"mean", "sum", "aligned", "pcgrad", "graddrop", "rlw", "uncertainty"} <= set(OTHERS)


@pytest.mark.parametrize("name", NEEDY)
def test_named_for_both_it_serves_the_critic_and_the_actor_takes_the_mean(name):
    chosen = cli.parse([*TOY, "--aggregator", name])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == (name, "mean")
    (remark,) = chosen.remarks
    assert remark == f"{name} needs positive losses, and an actor's are negative: critic {name}, actor mean"


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_serve_both_without_a_remark(name):
    chosen = cli.parse([*TOY, "--aggregator", name])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == (name, name)
    assert chosen.remarks == ()


def test_its_options_go_to_the_critic_alone():
    chosen = cli.parse([*TOY, "--aggregator", "famo", "--aggregator.lr", "0.1"])
    assert chosen.critic_aggregator_config.lr == 0.1
    assert chosen.actor_aggregator_config == cli.parse(TOY).actor_aggregator_config


@pytest.mark.parametrize("argv", [["--critic.aggregator", "famo"], ["--aggregator=famo", "--actor.aggregator=aligned"]])
def test_nothing_is_remarked_where_each_part_was_named(argv):
    chosen = cli.parse([*TOY, *argv])
    assert chosen.critic_aggregator == "famo"
    assert chosen.actor_aggregator == ("aligned" if len(argv) == 2 and "=" in argv[0] else "mean")
    assert chosen.remarks == ()


@pytest.mark.parametrize("name", NEEDY)
def test_asked_for_on_the_actor_it_is_refused_with_the_reason(capsys, name):
    said = refusal(capsys, "--actor.aggregator", name)
    assert said.startswith(f"error: --actor.aggregator: {name!r} needs positive losses, and an actor's are negative")
    assert f"--critic.aggregator {name}" in said


def test_named_for_both_and_again_for_the_actor_it_is_refused(capsys):
    assert "error: --actor.aggregator: 'famo'" in refusal(capsys, "--aggregator", "famo", "--actor.aggregator", "famo")


def test_shorthand_that_would_serve_no_part_is_refused(capsys):
    said = refusal(capsys, "--aggregator", "famo", "--critic.aggregator", "aligned")
    assert said.startswith("error: --aggregator: 'famo' needs positive losses")


def test_option_for_the_actor_is_refused_as_the_mean_has_none(capsys):
    said = refusal(capsys, "--aggregator", "famo", "--actor.aggregator.lr", "0.1")
    assert "--actor.aggregator.lr: aggregator 'mean' has no such option" in said


def test_file_that_gives_it_to_the_actor_is_named(capsys, tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("actor.aggregator: famo")
    assert f"--actor.aggregator (in {file}): 'famo' needs positive" in refusal(capsys, "--preset", str(file))


def test_shorthand_in_a_file_counts_as_shorthand(tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("aggregator: famo\naggregator.lr: 0.1\nactor.aggregator.weights: [1, 2, 3, 4]")
    chosen = cli.parse([*TOY, "--preset", str(file)])
    assert chosen.critic_aggregator_config.lr == 0.1
    assert chosen.actor_aggregator == "mean"
    assert chosen.actor_aggregator_config.weights == (1, 2, 3, 4)


@pytest.mark.parametrize("name", NEEDY)
def test_saved_settings_read_back_identical_and_need_no_remark(tmp_path, name):
    chosen = cli.parse([*TOY, "--aggregator", name])
    file = tmp_path / "config.yaml"
    file.write_text(chosen.to_yaml())
    again = cli.parse(["--preset", str(file)])
    assert again == chosen == cli.load(tmp_path)
    assert again.to_yaml() == chosen.to_yaml()
    assert again.remarks == ()


def test_preset_of_a_run_with_another_method_gives_way(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(cli.parse([*TOY, "--aggregator", "aligned"]).to_yaml())
    chosen = cli.parse(["--preset", str(file), "--aggregator", "famo"])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == ("famo", "mean")


def test_help_says_it_and_shows_the_options_of_both_parts(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse([*TOY, "--aggregator", "famo", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "famo needs positive losses, and an actor's are negative: critic famo, actor mean\n" in text
    assert "--critic.aggregator.lr 0.025" in text
    assert "--actor.aggregator.weights None" in text


# ---- methods that need them with some options only

ALPHA = ["--aggregator", "gradnorm", "--aggregator.alpha"]


def test_gradnorm_needs_them_where_it_looks_at_losses():
    assert not aggregators.make("gradnorm").needs_positive_losses
    assert aggregators.make("gradnorm", alpha=0.5).needs_positive_losses


def test_option_that_calls_for_them_spares_the_actor():
    chosen = cli.parse([*TOY, *ALPHA, "0.5"])
    assert (chosen.critic_aggregator, chosen.actor_aggregator) == ("gradnorm", "mean")
    assert chosen.critic_aggregator_config.alpha == 0.5
    assert chosen.remarks == (
        "gradnorm needs positive losses, and an actor's are negative: critic gradnorm, actor mean",
    )


def test_option_that_does_not_call_for_them_serves_both():
    for argv in ([*ALPHA, "0"], [*ALPHA, "0.5", "--actor.aggregator.alpha", "0"]):
        chosen = cli.parse([*TOY, *argv])
        assert (chosen.critic_aggregator, chosen.actor_aggregator) == ("gradnorm", "gradnorm")
        assert chosen.actor_aggregator_config.alpha == 0
        assert chosen.remarks == ()


def test_option_that_calls_for_them_is_refused_on_the_actor(capsys, tmp_path):
    said = refusal(capsys, "--actor.aggregator", "gradnorm", "--actor.aggregator.alpha", "0.5")
    assert said.startswith("error: --actor.aggregator: 'gradnorm' needs positive losses")
    file = tmp_path / "preset.yaml"
    file.write_text("actor.aggregator: gradnorm\nactor.aggregator.alpha: 0.5")
    assert f"--actor.aggregator (in {file}): 'gradnorm' needs" in refusal(capsys, "--preset", str(file))


@pytest.mark.parametrize("alpha", ["-1", "much"])
def test_bad_value_of_that_option_is_named_first(capsys, alpha):
    assert refusal(capsys, *ALPHA, alpha).startswith("error: --aggregator.alpha: ")


def test_settings_with_that_option_read_back_identical(tmp_path):
    chosen = cli.parse([*TOY, *ALPHA, "0.5"])
    (tmp_path / "config.yaml").write_text(chosen.to_yaml())
    assert cli.load(tmp_path) == chosen
    assert cli.load(tmp_path).remarks == ()
