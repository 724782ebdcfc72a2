"""Pictures equal stock's, upright, from every camera and with either engine, and making them disturbs nothing."""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import itertools
import os
import pickle
import subprocess
import sys
from contextlib import closing
from functools import cache

import mujoco
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from mtrl import envs
from mtrl.envs.gymnasium_adapter import as_gymnasium
from mtrl.envs.metaworld import rendering
from mtrl.envs.metaworld.native import NativeSawyerEnv
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import CAMERAS, MT50, STEPS_PER_SECOND
from mtrl.envs.workers import RenderingError
from tests.envs.metaworld.test_native import GOALS

WIDTH, HEIGHT = 64, 48

UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
"""Cameras whose stock pictures stand on their head: seen with one's own eyes, not computed."""

ENGINES = {"stock": SawyerEnv, "native": NativeSawyerEnv}


@cache
def why_not() -> str:
    """Return why pictures cannot be made here; nothing where they can."""
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><camera name='eye'/></worldbody></mujoco>")
    renderer = rendering.Renderer(model)
    try:
        renderer.render(mujoco.MjData(model), "eye", 8, 8)
    except RenderingError as error:
        return str(error)
    finally:
        renderer.close()
    return ""


@pytest.fixture
def opengl(monkeypatch):
    """Give Gymnasium the OpenGL that we find by ourselves; skip where there is none."""
    if why_not():
        pytest.skip(why_not())
    name = rendering._name_of_opengl()
    if name in {"egl", "osmesa"}:
        monkeypatch.setenv("MUJOCO_GL", name)


pytestmark = [pytest.mark.mujoco, pytest.mark.timeout(300)]  # the first run compiles


class Stock:
    """Meta-World's own environment with its own rendering, through Gymnasium."""

    def __init__(self, name, camera, goal, size=(WIDTH, HEIGHT)):
        self.env = ALL_V3_ENVIRONMENTS[name](
            reward_function_version="v2",
            render_mode="rgb_array",
            camera_name=camera,
            width=size[0],
            height=size[1],
        )
        data = {"rand_vec": GOALS[name][goal], "env_cls": type(self.env), "partially_observable": False}
        self.env.set_task(Task(env_name=name, data=pickle.dumps(data)))
        self.env.reset()
        self.camera = camera

    def look_through(self, camera):
        self.camera = camera
        self.env.mujoco_renderer.camera_id = self.env.model.camera(camera).id

    def picture(self):
        """Return stock's picture, the upside-down ones turned around."""
        picture = np.asarray(self.env.render())
        return np.rot90(picture, 2) if self.camera in UPSIDE_DOWN else picture


def actions(num_steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (num_steps, 4)).astype(np.float32)


def test_cameras_are_those_of_every_model():
    for name in MT50[::10]:
        model = SawyerEnv(name, GOALS[name]).env.model
        assert {model.camera(index).name for index in range(model.ncam)} == set(CAMERAS)


def test_the_pace_is_that_of_the_models():
    assert SawyerEnv("reach-v3", GOALS["reach-v3"]).env.metadata["render_fps"] == STEPS_PER_SECOND


@pytest.mark.usefixtures("opengl")
def test_every_camera_shows_what_stock_shows_whichever_engine_steps():
    name = "drawer-open-v3"
    stock = Stock(name, "corner", 3)
    with closing(SawyerEnv(name, GOALS[name])) as plain, closing(NativeSawyerEnv(name, GOALS[name])) as native:
        plain.reset(3)
        native.reset(3)
        for camera, env in zip(CAMERAS, itertools.cycle((plain, native)), strict=False):  # all pairs are a slow test
            for action in actions(5):
                stock.env.step(action)
                plain.step(action)
                native.step(action)
            stock.look_through(camera)
            expected = stock.picture()
            assert expected.std() > 10  # something is to be seen
            np.testing.assert_array_equal(env.render(camera, WIDTH, HEIGHT), expected, err_msg=camera)
    stock.env.close()


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", ["bin-picking-v3", "door-open-v3", "stick-push-v3", "reach-wall-v3", "hammer-v3"])
def test_pictures_equal_stock_from_reset_on(name, camera):
    stock = Stock(name, camera, 3, size=(100, 80))
    for engine in ENGINES.values():
        with closing(engine(name, GOALS[name])) as env:
            env.reset(7)
            env.render(camera, 700, 500)  # more room than stock's own buffer has
            env.reset(3)
            stock.env.reset()
            np.testing.assert_array_equal(env.render(camera, 100, 80), stock.picture())
            for action in actions(30):
                env.step(action)
                stock.env.step(action)
            np.testing.assert_array_equal(env.render(camera, 100, 80), stock.picture())
    stock.env.close()


@pytest.mark.usefixtures("opengl")
def test_up_is_up():
    # The floor is nearly white and below, the sky behind it grey: in a picture upside down it would be the reverse.
    with closing(SawyerEnv("reach-v3", GOALS["reach-v3"])) as env:
        env.reset(0)
        picture = env.render("corner2", WIDTH, HEIGHT).astype(float).mean(axis=-1)
    assert picture[:4].mean() < 130 < 150 < picture[-12:, -12:].mean()


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("engine", ENGINES.values())
def test_looking_changes_nothing(engine):
    name = "bin-picking-v3"
    with closing(engine(name, GOALS[name])) as seen, closing(engine(name, GOALS[name])) as unseen:
        for goal in (3, 7, 3):
            np.testing.assert_array_equal(seen.reset(goal), unseen.reset(goal))
            for step, action in enumerate(actions(20, seed=goal)):
                if step % 7 == 0:
                    seen.render(CAMERAS[step % len(CAMERAS)], WIDTH, HEIGHT)
                found, expected = seen.step(action), unseen.step(action)
                np.testing.assert_array_equal(found.obs, expected.obs)
                assert found[1:6] == expected[1:6]
            left, right = seen.get_state(), unseen.get_state()
            np.testing.assert_array_equal(left["simulation"], right["simulation"])


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("camera", ["corner2", "behindGripper"])
def test_a_restored_state_looks_the_same(camera):
    name = "drawer-open-v3"
    with closing(NativeSawyerEnv(name, GOALS[name])) as env, closing(SawyerEnv(name, GOALS[name])) as other:
        env.reset(3)
        for action in actions(20):
            env.step(action + np.array([0.5, 0.5, 0, 0], np.float32))  # away from where the other one is
        other.set_state(env.get_state())
        np.testing.assert_array_equal(other.render(camera, WIDTH, HEIGHT), env.render(camera, WIDTH, HEIGHT))


@pytest.mark.usefixtures("opengl")
def test_a_size_that_opengl_refuses_is_an_error_and_the_next_picture_is_right():
    with closing(SawyerEnv("reach-v3", GOALS["reach-v3"])) as env:
        env.reset(0)
        before = env.render("corner2", WIDTH, HEIGHT)
        with pytest.raises(RenderingError, match="1000000 x 8 pixels"):
            env.render("corner2", 1_000_000, 8)
        np.testing.assert_array_equal(env.render("corner2", WIDTH, HEIGHT), before)


@pytest.mark.usefixtures("opengl")
def test_workers_render_chosen_tasks_and_envs_in_their_order():
    name = "mt50:reach-v3,door-open-v3,push-v3"
    with closing(envs.make(name, workers=2, envs_per_task=2)) as env:
        with pytest.raises(RuntimeError, match="reset"):
            env.render()
        env.reset(np.arange(6).reshape(3, 2))
        pictures = env.render(width=WIDTH, height=HEIGHT, tasks=["push-v3", "reach-v3"], envs=[1])
        assert pictures.shape == (2, 1, HEIGHT, WIDTH, 3)
        assert pictures.dtype == np.uint8
        for picture, task, goal in ((pictures[0, 0], "push-v3", 5), (pictures[1, 0], "reach-v3", 1)):
            with closing(SawyerEnv(task, GOALS[task])) as single:
                single.reset(goal)
                np.testing.assert_array_equal(picture, single.render(CAMERAS[0], WIDTH, HEIGHT))
        assert env.step(np.zeros((3, 2, 4))).valid.all()


@pytest.mark.usefixtures("opengl")
def test_the_gymnasium_adapter_renders_every_copy():
    with closing(as_gymnasium(envs.make("mt50:reach-v3", workers=1, envs_per_task=2), render_mode="rgb_array")) as env:
        env.reset()
        assert env.metadata["render_fps"] == 80
        pictures = env.render()
        assert pictures is not None
        assert [picture.shape for picture in pictures] == [(480, 480, 3)] * 2
        assert (pictures[0] != pictures[1]).any()  # they have goals of their own


def test_what_cannot_be_shown_is_an_error_and_ends_nothing(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    with closing(envs.make("mt50:reach-v3", workers=1)) as env:
        env.reset()
        with pytest.raises(ValueError, match=r"unknown camera 'corner5'\. Did you mean 'corner'"):
            env.render("corner5")
        with pytest.raises(ValueError, match=r"unknown task 'push-v3'.*Choices: reach-v3"):
            env.render(tasks=["push-v3"])
        with pytest.raises(ValueError, match="env 1, expected 0 to 0"):
            env.render(envs=[1])
        with pytest.raises(ValueError, match="height is 0, expected 1 or more"):
            env.render(height=0)
        with pytest.raises(ValueError, match=r"unknown camera 'topviev'\. Did you mean 'topview'"):
            as_gymnasium(env, render_mode="rgb_array", camera="topviev")
        with pytest.raises(RenderingError, match=r"with off: .*apt-get install libegl1"):
            env.render()
        assert env.step(np.zeros((1, 1, 4))).valid.all()


WITHOUT_LOOKING = """
import sys
import numpy as np
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.sawyer import SawyerEnv
env = SawyerEnv("reach-v3", goal_vectors("mt50", ["reach-v3"], 0)["reach-v3"])
env.reset(0)
env.step(np.zeros(4, np.float32))
env.close()
print([name for name in sys.modules if name.startswith(("OpenGL", "mujoco.egl", "mujoco.osmesa"))])
"""


def test_who_does_not_look_loads_no_opengl():
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    command = [sys.executable, "-c", WITHOUT_LOOKING]
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "[]"


WRONG_OPENGL = """
import warnings
import numpy as np
from mtrl import envs
from mtrl.envs.workers import RenderingError
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    env = envs.make("mt1:reach-v3", workers=1)
print([str(one.message).partition("(")[0] for one in caught if "pictures" in str(one.message)])
print(caught[0].filename.endswith("<string>") or caught[0].filename)
env.reset()
print(env.step(np.zeros((1, 1, 4), np.float32)).valid.all())
try:
    env.render()
except RenderingError as problem:
    print(str(problem)[:47])
env.close()
"""


def test_a_wrong_choice_of_opengl_costs_pictures_and_nothing_else():
    environment = os.environ | {"MUJOCO_GL": "bogus", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRONG_OPENGL]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.splitlines() == [
        "['going on without pictures: MUJOCO_GL is bogus, which fails here: RuntimeError']",
        "True",
        "True",
        "cannot make a picture of 480 x 480 pixels with ",
    ]
