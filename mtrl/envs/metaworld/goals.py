"""Draw the goals of Meta-World's benchmarks, number for number, without building an environment.

A goal is the random vector that a task's reset consumes: where the object starts and, for many tasks, where it must go.
The benchmarks draw them from NumPy's legacy generator, 50 for each task in turn, by resetting real environments: up to
minutes of physics for numbers that depend on none of it. Here the same draws take milliseconds, so nothing is cached;
`scripts/check_goals.py` compares the two.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.tasks import BENCHMARKS, NUM_GOALS

RESET_MODEL_CALLS = 2
"""Meta-World's reset calls `reset_model` twice, and each call draws; only the last vector is kept."""


class GoalSpace(NamedTuple):
    """Where the goals of one task are drawn from."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    min_distance: float = 0.0
    """Draw again while start and target are closer than this, in metres in the plane."""
    target: tuple[float, float] | None = None
    """The target's place in the plane where it is not part of the vector."""


def goal_vectors(suite: str, task_names: Iterable[str], goal_seed: int) -> dict[str, Float[np.ndarray, "goal vector"]]:
    """Return the goals that the tasks have in the benchmark `suite` under `goal_seed`.

    Args:
        suite: One of `BENCHMARKS`.
        task_names: Tasks of the suite; their goals do not depend on which others are asked for.
        goal_seed: Seed of the benchmark, between 0 and 2**32 - 1.
    """
    wanted = tuple(task_names)
    if suite == "mt1":
        return {name: _draw(np.random.RandomState(goal_seed), GOAL_SPACES[name]) for name in wanted}
    generator = np.random.RandomState(goal_seed)
    drawn = {name: _draw(generator, GOAL_SPACES[name]) for name in BENCHMARKS[suite]}
    return {name: drawn[name] for name in wanted}


def _draw(generator: np.random.RandomState, space: GoalSpace) -> Float[np.ndarray, "goal vector"]:
    accepted = [_draw_accepted(generator, space) for _ in range(NUM_GOALS * RESET_MODEL_CALLS)]
    return np.stack(accepted[RESET_MODEL_CALLS - 1 :: RESET_MODEL_CALLS])


def _draw_accepted(generator: np.random.RandomState, space: GoalSpace) -> Float[np.ndarray, " vector"]:
    vector = generator.uniform(space.low, space.high)
    while _distance(vector, space) < space.min_distance:
        vector = generator.uniform(space.low, space.high)
    return vector


def _distance(vector: Float[np.ndarray, " vector"], space: GoalSpace) -> float:
    if space.min_distance == 0.0:
        return 0.0
    target = vector[3:5] if space.target is None else np.array(space.target)
    return float(np.linalg.norm(vector[:2] - target))


GOAL_SPACES = {
    "assembly-v3": GoalSpace((0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1), 0.1),
    "basketball-v3": GoalSpace((-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0), (0.1, 0.7, 0.0301, 0.1, 0.9000001, 0.0), 0.15),
    "bin-picking-v3": GoalSpace((-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)),
    "box-close-v3": GoalSpace((-0.05, 0.5, 0.02, -0.1, 0.7, 0.133), (0.05, 0.55, 0.02, 0.1, 0.8, 0.133), 0.25),
    "button-press-topdown-v3": GoalSpace((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-topdown-wall-v3": GoalSpace((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-v3": GoalSpace((-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)),
    "button-press-wall-v3": GoalSpace((-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)),
    "coffee-button-v3": GoalSpace((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "coffee-pull-v3": GoalSpace((-0.05, 0.7, -0.001, -0.1, 0.55, -0.001), (0.05, 0.75, 0.001, 0.1, 0.65, 0.001), 0.15),
    "coffee-push-v3": GoalSpace((-0.1, 0.55, -0.001, -0.05, 0.7, -0.001), (0.1, 0.65, 0.001, 0.05, 0.75, 0.001), 0.15),
    "dial-turn-v3": GoalSpace((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "disassemble-v3": GoalSpace((0.0, 0.6, 0.025, -0.1, 0.6, 0.1699), (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701), 0.1),
    "door-close-v3": GoalSpace((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-lock-v3": GoalSpace((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "door-open-v3": GoalSpace((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-unlock-v3": GoalSpace((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "hand-insert-v3": GoalSpace((-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201), (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199), 0.15),
    "drawer-close-v3": GoalSpace((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "drawer-open-v3": GoalSpace((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "faucet-open-v3": GoalSpace((-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)),
    "faucet-close-v3": GoalSpace((-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)),
    "hammer-v3": GoalSpace((-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)),
    "handle-press-side-v3": GoalSpace((-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)),
    "handle-press-v3": GoalSpace((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "handle-pull-side-v3": GoalSpace((-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)),
    "handle-pull-v3": GoalSpace((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "lever-pull-v3": GoalSpace((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "pick-place-wall-v3": GoalSpace((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), 0.15),
    "pick-out-of-hole-v3": GoalSpace((0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3), 0.15),
    "pick-place-v3": GoalSpace((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), 0.15),
    "plate-slide-v3": GoalSpace((0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)),
    "plate-slide-side-v3": GoalSpace((0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)),
    "plate-slide-back-v3": GoalSpace((0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)),
    "plate-slide-back-side-v3": GoalSpace((-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)),
    "peg-insert-side-v3": GoalSpace((0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), 0.1),
    "peg-unplug-side-v3": GoalSpace((-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)),
    "soccer-v3": GoalSpace((-0.1, 0.6, 0.03, -0.1, 0.8, 0.0), (0.1, 0.7, 0.03, 0.1, 0.9, 0.0), 0.15),
    "stick-push-v3": GoalSpace((-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319), (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321), 0.1),
    "stick-pull-v3": GoalSpace((-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199), (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201), 0.1),
    "push-v3": GoalSpace((-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), 0.15),
    "push-wall-v3": GoalSpace((-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02), 0.15),
    "push-back-v3": GoalSpace((-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201), 0.15),
    "reach-v3": GoalSpace((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), 0.15),
    "reach-wall-v3": GoalSpace((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), 0.15),
    "shelf-place-v3": GoalSpace((-0.1, 0.5, 0.019, -0.1, 0.8, 0.299), (0.1, 0.6, 0.021, 0.1, 0.9, 0.301), 0.1),
    "sweep-into-v3": GoalSpace(
        (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199), (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201), 0.15, target=(0.0, 0.84)
    ),
    "sweep-v3": GoalSpace((-0.1, 0.6, 0.02), (0.1, 0.7, 0.02)),
    "window-open-v3": GoalSpace((-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)),
    "window-close-v3": GoalSpace((0.0, 0.75, 0.2), (0.0, 0.9, 0.2)),
}
"""Task -> its space, in the order of `MT50`."""
