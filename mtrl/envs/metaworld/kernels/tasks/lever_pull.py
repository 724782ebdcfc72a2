"""lever-pull-v3: lift the lever. `metaworld.envs.sawyer_lever_pull_v3.SawyerLeverPullEnvV3`."""

from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_lever_pull_v3 import SawyerLeverPullEnvV3

from mtrl.envs.metaworld.kernels.arithmetic import distance, hamacher_product, long_tail, scaled_distance
from mtrl.envs.metaworld.kernels.compile import kernel
from mtrl.envs.metaworld.kernels.gripper import Gripper, Point
from mtrl.envs.metaworld.kernels.quaternion import from_matrix
from mtrl.envs.metaworld.kernels.step import make_step
from mtrl.envs.metaworld.kernels.views import fixed, geom_mat, joint, site

SCALE = (4.0, 1.0, 4.0)
"""Less of y, so that the hand is brought under the lever before it bumps against it."""


class Scene(NamedTuple):
    """What the task looks at."""

    target: Point
    lever: Point
    lever_mat: np.ndarray
    lever_pos_init: Point
    lever_axis: np.ndarray


def scene(env: SawyerLeverPullEnvV3) -> Scene:
    """Find it in an environment that was just reset."""
    return Scene(
        target=fixed(env._target_pos),
        lever=site(env, "leverStart"),
        lever_mat=geom_mat(env, "objGeom"),
        lever_pos_init=fixed(env._lever_pos_init),
        lever_axis=joint(env, "LeverAxis"),
    )


@kernel
def observe(scene: Scene, objects: np.ndarray) -> None:
    """Write position and orientation of the lever."""
    objects[:3] = scene.lever
    from_matrix(scene.lever_mat, objects[3:7])


@kernel
def evaluate(gripper: Gripper, scene: Scene, obs: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
    """Return reward and success."""
    hand, lever = obs[:3], obs[4:7]
    # The shoulder of the hand is to lift, not the fingers.
    offset = np.array([0.0, 0.055, 0.07])
    shoulder_to_lever = scaled_distance(hand + offset, lever, SCALE)
    shoulder_to_lever_init = scaled_distance(gripper.init_tcp + offset, scene.lever_pos_init, SCALE)
    ready_to_lift = long_tail(shoulder_to_lever, 0.0, 0.02, shoulder_to_lever_init)
    lever_error = abs(-scene.lever_axis[0] - np.pi / 2.0)
    in_place_margin = distance(scene.lever_pos_init, scene.target)
    in_place = long_tail(distance(lever, scene.target), 0.0, 0.04, in_place_margin)
    return 10.0 * hamacher_product(ready_to_lift, in_place), lever_error <= np.pi / 24


step = make_step(observe, evaluate)
