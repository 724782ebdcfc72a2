"""Names of environments: their forms, their errors, and that asking costs nothing."""

import subprocess
import sys

import pytest

from mtrl import envs
from mtrl.envs.metaworld.tasks import MT10, MT25, MT50


@pytest.mark.parametrize(
    ("name", "suite", "tasks"),
    [
        ("mt10", "mt10", None),
        ("toy_scaled", "toy_scaled", None),
        ("mt10:push-v3,reach-v3", "mt10", ("push-v3", "reach-v3")),
        ("mt1:sweep-v3", "mt1", ("sweep-v3",)),
        ("reach-v3", "mt50", ("reach-v3",)),
        ("sweep-v3,assembly-v3", "mt50", ("sweep-v3", "assembly-v3")),
    ],
)
def test_every_form_of_a_name_is_parsed_and_valid(name, suite, tasks):
    assert envs.parse(name) == (suite, tasks)
    envs.check(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mt11", "unknown environment 'mt11'. Did you mean 'mt1"),
        ("MT10", "unknown environment 'MT10'"),
        ("push", "unknown environment 'push'. Did you mean 'push-v3'"),
        ("toi", "Did you mean 'toy'"),
        ("push-v4", "'push-v4'. Did you mean 'push-v3'"),
        ("mt10:push-v3,reach-v2", "unknown task of mt10 'reach-v2'. Did you mean 'reach-v3'"),
        ("mt10:sweep-v3", "unknown task of mt10 'sweep-v3'"),
        ("mt10:", "unknown task of mt10 ''"),
        ("mt12:reach-v3", "unknown environment 'mt12'. Did you mean 'mt1"),
        ("mt1", "'mt1' needs a task, as in 'mt1:reach-v3'"),
        ("mt1:reach-v3,push-v3", "mt1 is one task; name several as in 'mt10:reach-v3,push-v3'"),
        ("reach-v3,push-v3,reach-v3", "names reach-v3 more than once"),
        ("toy:reach-east,reach-east", "names reach-east more than once"),
        ("toy:reach-easst", "unknown task of toy 'reach-easst'. Did you mean 'reach-east'"),
        ("toy_scaled:", "unknown task of toy_scaled ''"),
    ],
)
def test_an_invalid_name_says_what_is_expected(name, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared as text
        envs.check(name)
    assert message in str(error.value)


def test_an_unknown_suite_is_answered_with_the_suites_alone():
    said = (
        r"Did you mean 'push-v3'\? Choices: toy, toy_scaled, toy_exp, toy_power, toy_groups, mt1, mt10, mt25, mt50, "
        r"gymnasium\.$"
    )
    with pytest.raises(ValueError, match=said):
        envs.check("push")


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("mt10", MT10),
        ("mt10:push-v3,reach-v3", ("push-v3", "reach-v3")),
        ("mt1:sweep-v3", ("sweep-v3",)),
        ("sweep-v3", ("sweep-v3",)),
        ("mt25", MT25),
        ("mt50", MT50),
        ("toy", ("reach-east", "reach-north", "reach-west", "reach-south")),
        ("toy_scaled:reach-south", ("reach-south",)),
    ],
)
def test_tasks_and_goals_are_known_by_name(name, tasks):
    assert envs.task_names(name) == tasks
    assert envs.num_goals(name) == 50


@pytest.mark.parametrize("name", ["toy", "toy_scaled:reach-west,reach-east", "reach-v3"])
def test_what_is_made_has_the_tasks_and_goals_of_its_name(name):
    env = envs.make(name, workers=1)
    try:
        assert env.spec.task_names == envs.task_names(name)
        assert env.spec.num_goals == envs.num_goals(name)
    finally:
        env.close()


@pytest.mark.parametrize("ask", [envs.task_names, envs.num_goals])
def test_asking_refuses_an_invalid_name(ask):
    with pytest.raises(ValueError, match="unknown environment 'mt11'"):
        ask("mt11")


def test_make_refuses_an_invalid_name():
    with pytest.raises(ValueError, match="mt10"):
        envs.make("mt11")


@pytest.mark.parametrize("only", [(), ("reach-west", "reach-east", "reach-west")])
def test_make_refuses_no_task_and_a_task_twice(only):
    with pytest.raises(ValueError, match=r"only is .*, expected at least one task of toy, and each once"):
        envs.make("toy", only=only)


def test_suites_are_listed():
    assert envs.names() == (
        *("toy", "toy_scaled", "toy_exp", "toy_power", "toy_groups"),
        *("mt1", "mt10", "mt25", "mt50", "gymnasium"),
    )


def test_names_are_checked_without_heavy_imports():
    code = (
        "import sys, mtrl.envs as envs; envs.check('mt10:reach-v3'); envs.task_names('toy'); envs.num_goals('mt50');"
        "print([name for name in ('torch', 'numpy', 'mujoco', 'metaworld', 'gymnasium') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_task_is_looked_up_in_its_environment():
    envs.check_task("mt10:push-v3,reach-v3", "reach-v3")
    with pytest.raises(ValueError, match="Did you mean 'push-v3'"):
        envs.check_task("mt10:push-v3,reach-v3", "push-v2")
