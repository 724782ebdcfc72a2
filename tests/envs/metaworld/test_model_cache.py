"""A model from the cache is the compiled one, and whatever is wrong with it, it is compiled again."""

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from mtrl.envs.metaworld import model_cache
from mtrl.envs.metaworld.cache import Store
from mtrl.envs.metaworld.model_cache import load, save, with_kept_model
from mtrl.envs.metaworld.sawyer import SawyerEnv
from mtrl.envs.metaworld.tasks import MT50
from tests.envs.metaworld.rollouts import GOAL, GOALS, rollout

pytestmark = [pytest.mark.mujoco]

NUM_FIELDS = 500
"""Of a model, at the least; 593 in MuJoCo 3.3.0."""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "mtrl"


def stock_model(name):
    return ALL_V3_ENVIRONMENTS[name](reward_function_version="v2").model


def fields(value, path=""):
    """Return all numbers, arrays and names in a structure of MuJoCo, by path."""
    found = {}
    for name in dir(value):
        item = None if name.startswith("_") else getattr(value, name)
        if isinstance(item, np.ndarray):
            found[path + name] = (item.dtype, item.shape, item.tobytes())
        elif isinstance(item, int | float | str | bytes):
            found[path + name] = item
        elif item is not None and not callable(item):
            found |= fields(item, f"{path}{name}.")
    return found


def assert_equal_models(found, expected):
    found, expected = fields(found), fields(expected)
    assert len(expected) > NUM_FIELDS
    assert found.keys() == expected.keys()
    assert not [name for name, value in expected.items() if found[name] != value]


def forbid_compiling(monkeypatch):
    def forbidden(path):
        raise AssertionError(f"{path} is compiled again")

    monkeypatch.setattr("mujoco.MjModel.from_xml_path", forbidden)


def assert_kept(name, monkeypatch):
    """Build the same environment by the stock class, by one that keeps its model and by one that reads it."""
    goals, variant = GOALS[name], with_kept_model(ALL_V3_ENVIRONMENTS[name])
    stock, cold = SawyerEnv(name, goals), SawyerEnv(name, goals, variant)
    with monkeypatch.context() as patch:
        forbid_compiling(patch)
        warm = SawyerEnv(name, goals, variant)
    envs = (stock, cold, warm)
    for env in envs[1:]:
        assert_equal_models(env.env.model, stock.env.model)
        assert env.env.task_name == stock.env.task_name
    expected, *others = (rollout(env, env.reset(GOAL), env.env.data) for env in envs)
    for found in others:
        for part, values in expected.items():
            np.testing.assert_array_equal(found[part], values, err_msg=part)


@pytest.mark.parametrize("name", ["push-v3", "hammer-v3"])
def test_a_kept_model_is_the_compiled_one_and_moves_alike(name, monkeypatch):
    assert_kept(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", MT50)
def test_every_kept_model_is_the_compiled_one_and_moves_alike(name, monkeypatch):
    assert_kept(name, monkeypatch)


def test_scenes_share_what_they_have_in_common(root):
    store, sizes = Store("models"), []
    for name in ("push-v3", "assembly-v3", "door-lock-v3"):
        save(store, name, stock_model(name))
        sizes.append(sum(path.stat().st_size for path in root.rglob("*") if path.is_file()))
    assert sizes[0] > 20e6
    assert sizes[2] < 2 * sizes[0]  # 31 MB, where three alone have 63
    for name in ("push-v3", "assembly-v3", "door-lock-v3"):
        model = load(store, name)
        assert model is not None
        assert_equal_models(model, stock_model(name))


def test_a_damaged_or_missing_part_is_made_again(root):
    store, model = Store("models"), stock_model("push-v3")
    save(store, "push", model)
    parts = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "push")
    contents = parts[0].read_bytes(), parts[-1].read_bytes()
    damaged = bytearray(contents[0])
    damaged[-1] ^= 1
    parts[0].write_bytes(damaged)
    assert load(store, "push") is None
    parts[0].write_bytes(contents[0])
    assert load(store, "push") is not None
    parts[-1].unlink()
    assert load(store, "push") is None
    parts[0].write_bytes(damaged)
    save(store, "push", model)
    assert (parts[0].read_bytes(), parts[-1].read_bytes()) == contents


def test_without_a_place_for_its_parts_a_model_is_compiled(root, monkeypatch):
    save(Store("models"), "push", stock_model("push-v3"))
    monkeypatch.setattr("tempfile.tempdir", str(root / "nowhere"))
    assert load(Store("models"), "push") is None


def test_without_a_cache_a_model_is_compiled(root):
    root.parent.write_text("a file")
    variant = with_kept_model(ALL_V3_ENVIRONMENTS["push-v3"])
    with pytest.warns(RuntimeWarning, match="nothing is kept for the next run"):
        env = SawyerEnv("push-v3", GOALS["push-v3"], variant)
    assert_equal_models(env.env.model, stock_model("push-v3"))


@pytest.mark.parametrize("tail", [b"", b"x", bytes(100_000)])
def test_parts_are_the_whole_and_survive_a_shift(tail):
    data = np.random.default_rng(0).bytes(2_000_000)
    parts = list(model_cache._parts(data + tail))
    assert b"".join(parts) == data + tail
    assert all(len(part) >= model_cache.MIN_PART for part in parts[:-1])
    assert len(parts) > 10
    shifted = list(model_cache._parts(b"some bytes before " + data + tail))
    assert parts[-1] == shifted[-1]
    assert len(set(parts) & set(shifted)) >= len(parts) - 2
