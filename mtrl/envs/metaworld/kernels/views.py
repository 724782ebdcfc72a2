"""What a task's scene is made of: views of MuJoCo's memory, which are always up to date, and numbers of the episode."""

# MuJoCo's names come from compiled modules, which the type checker cannot see into.
# pyright: reportAttributeAccessIssue=false

import numpy as np
from jaxtyping import Float
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.envs.metaworld.kernels.gripper import Gripper


def body(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 3"]:
    """Return the position of a body, live."""
    return env.data.body(name).xpos


def body_quat(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 4"]:
    """Return the orientation of a body, live."""
    return env.data.body(name).xquat


def body_mat(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 9"]:
    """Return the orientation of a body as a matrix by rows, live."""
    return env.data.body(name).xmat


def geom(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 3"]:
    """Return the position of a geom, live."""
    return env.data.geom(name).xpos


def geom_mat(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 9"]:
    """Return the orientation of a geom as a matrix by rows, live."""
    return env.data.geom(name).xmat


def site(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 3"]:
    """Return the position of a site, live."""
    return env.data.site(name).xpos


def site_mat(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " 9"]:
    """Return the orientation of a site as a matrix by rows, live."""
    return env.data.site(name).xmat


def joint(env: SawyerXYZEnv, name: str) -> Float[np.ndarray, " dof"]:
    """Return the position of a joint, live."""
    return env.data.joint(name).qpos


def fixed(value: object) -> Float[np.ndarray, " n"]:
    """Return numbers of the episode as they are now."""
    return np.array(value, dtype=np.float64)


def gripper(env: SawyerXYZEnv) -> Gripper:
    """Return the parts that all tasks look at."""
    return Gripper(
        hand=body(env, "hand"),
        left_pad=body(env, "leftpad"),
        right_pad=body(env, "rightpad"),
        left_finger=site(env, "leftEndEffector"),
        right_finger=site(env, "rightEndEffector"),
        tcp=np.zeros(3),
        init_tcp=fixed(env.init_tcp),
    )
