"""Take and restore everything in a Meta-World environment that determines its future."""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float
from metaworld.sawyer_xyz_env import SawyerXYZEnv

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""All that MuJoCo's next step depends on, the solver's warm start included."""

Value = bool | int | float | np.generic | np.ndarray | None


def take(env: SawyerXYZEnv) -> dict[str, Any]:
    """Return the environment's state as plain types and arrays."""
    simulation = np.empty(mujoco.mj_stateSize(env.model, STATE))
    mujoco.mj_getState(env.model, env.data, simulation, STATE)
    return {
        "simulation": simulation,
        "poses": {name: pose.copy() for name, pose in _poses(env).items()},
        "model": {name: part.copy() for name, part in _model(env).items()},
        "views": {name: place for name, value in vars(env).items() if (place := _place(env, value))},
        "attributes": {name: _encode(value) for name, value in _attributes(env).items()},
    }


def restore(env: SawyerXYZEnv, state: dict[str, Any]) -> None:
    """Restore what `take` returned, also into an environment that was never reset."""
    mujoco.mj_setState(env.model, env.data, np.asarray(state["simulation"]), STATE)
    for name, pose in _poses(env).items():
        pose[:] = state["poses"][name]
    for name, part in _model(env).items():
        part[:] = state["model"][name]
    for name in _attributes(env).keys() | state["attributes"].keys():
        if name in state["attributes"]:
            env.__dict__[name] = _decode(state["attributes"][name])
    for name, place in state["views"].items():
        array, row = place.split()
        env.__dict__[name] = getattr(env.data, array)[int(row)]


def _poses(env: SawyerXYZEnv) -> dict[str, Float[np.ndarray, "..."]]:
    data = env.data
    return {
        "xpos": data.xpos,
        "xquat": data.xquat,
        "xmat": data.xmat,
        "xipos": data.xipos,
        "ximat": data.ximat,
        "geom_xpos": data.geom_xpos,
        "geom_xmat": data.geom_xmat,
        "site_xpos": data.site_xpos,
        "site_xmat": data.site_xmat,
    }


def _model(env: SawyerXYZEnv) -> dict[str, Float[np.ndarray, "..."]]:
    """Return the parts of the model that a reset changes."""
    model = env.model
    return {"body_pos": model.body_pos, "body_quat": model.body_quat, "site_pos": model.site_pos}


def _place(env: SawyerXYZEnv, value: object) -> str | None:
    """Return which row of which array of the simulation an attribute shows, as "xpos 3"; None where it shows none."""
    if not (isinstance(value, np.ndarray) and _is_view(value) and value.size):
        return None
    address = value.ctypes.data
    for name, array in _poses(env).items():
        offset = address - array.ctypes.data
        if 0 <= offset < array.nbytes and offset % array[0].nbytes == 0:
            return f"{name} {offset // array[0].nbytes}"
    return None


def _attributes(env: SawyerXYZEnv) -> dict[str, Value]:
    """Return the attributes that hold numbers of their own. Views of MuJoCo's memory stay what they are: views."""
    return {name: value for name, value in vars(env).items() if isinstance(value, Value) and not _is_view(value)}


def _is_view(value: Value) -> bool:
    """Tell whether an array shows memory of a MuJoCo structure: one that no NumPy array owns."""
    base = value
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(value, np.ndarray) and base is not None


def _encode(value: Value) -> bool | int | float | np.ndarray | None:
    return np.array(value) if isinstance(value, np.generic | np.ndarray) else value


def _decode(value: bool | int | float | np.ndarray | None) -> Value:
    if not isinstance(value, np.ndarray):
        return value
    return value.copy() if value.ndim else value[()]
