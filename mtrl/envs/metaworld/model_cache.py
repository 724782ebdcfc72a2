"""MuJoCo models of Meta-World's scenes, compiled once and then kept on disk.

A compiled scene has 20 MB, most of them the robot's. So files hold parts of models, named by their contents, and a
model is a list of parts: the 36 scenes of MT50 take 130 MB instead of 780.
"""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.cache import Store, origin

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: its products spread evenly, and so do the cuts."""

CUT_BITS = 16
"""One place in 2^16 is a cut. Smaller parts would save little: half the size takes 112 MB, in twice the files."""

MIN_PART = 8192


def with_kept_model(env_class: type[SawyerXYZEnv]) -> type[SawyerXYZEnv]:
    """Return a class of the same environments, which read the model that an earlier one compiled."""

    def initialize_simulation(env: SawyerXYZEnv) -> tuple[mujoco.MjModel, mujoco.MjData]:
        store, name = Store(f"models-{origin('model_cache.py')}"), Path(env.fullpath).name
        model = load(store, name)
        if model is not None:
            return model, mujoco.MjData(model)
        model, data = env_class._initialize_simulation(env)  # noqa: SLF001
        save(store, name, model)
        return model, data

    return type(env_class.__name__, (env_class,), {"_initialize_simulation": initialize_simulation})


def load(store: Store, name: str) -> mujoco.MjModel | None:
    """Return a model equal to the one saved under that name in every bit; None where there is none."""
    names = store.load(name)
    if names is None:
        return None
    parts = [part for part_name in names.decode().split() if (part := store.load(part_name))]
    if len(parts) < len(names.split()):
        return None
    try:
        with tempfile.NamedTemporaryFile(suffix=".mjb") as file:  # MuJoCo's way from memory takes twice as long
            file.writelines(parts)
            file.flush()
            return mujoco.MjModel.from_binary_path(file.name)
    except OSError:
        return None


def save(store: Store, name: str, model: mujoco.MjModel) -> None:
    """Keep a model under that name."""
    data = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, data)
    names = []
    for part in _parts(data.tobytes()):
        names.append(hashlib.sha256(part).hexdigest()[:32])
        if store.load(names[-1]) is None:
            store.save(names[-1], part)
    store.save(name, "\n".join(names).encode())


def _parts(data: bytes) -> Iterator[bytes]:
    """Cut where eight bytes say so, wherever they stand: then what two models have in common is cut alike in both."""
    windows = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))
    start = 0
    for cut in np.flatnonzero(windows * MULTIPLIER >> np.uint64(64 - CUT_BITS) == 1).tolist():
        if cut >= start + MIN_PART:
            yield data[start:cut]
            start = cut
    yield data[start:]
