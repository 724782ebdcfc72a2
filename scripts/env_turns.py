"""Let several ways of stepping environments take turns, and say how fast each was."""

import gc
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtrl.envs.metaworld.tasks import ACTION_DIM
from scripts.env_variants import Block, Follower, Variant

TURNS = 10
"""Of each variant in a round."""
WARM_UP_STEPS = 20


class Speed(NamedTuple):
    """What one variant took in some rounds, which hold several blocks each; one row is one environment."""

    rows: int
    rounds: list[list[Block]]

    def wall(self) -> list[float]:
        """Return seconds per environment step of every round."""
        return [sum(block.wall.sum() for block in blocks) / self._steps(blocks) for blocks in self.rounds]

    def cpu(self) -> list[float]:
        """Return CPU seconds per environment step of every round."""
        return [sum(block.cpu for block in blocks) / self._steps(blocks) for blocks in self.rounds]

    def _steps(self, blocks: list[Block]) -> int:
        return self.rows * sum(len(block.wall) for block in blocks)


def take_turns(variants: Sequence[Variant], rounds: int, steps: int, rows: int) -> dict[str, Speed]:
    """Let the variants take the same random actions in turns, and close them; a `Native` comes before what follows it.

    Raises:
        AssertionError: What follows a native engine has lost its states.
    """
    generator = np.random.default_rng(0)
    found = {variant.name: Speed(rows, [[] for _ in range(rounds)]) for variant in variants}
    gc.collect()
    gc.freeze()  # what exists now need not be looked at again
    gc.disable()
    try:
        for index in range(-1, rounds):
            num_steps, turns = (steps, TURNS) if index >= 0 else (min(steps, WARM_UP_STEPS), 1)
            actions = generator.uniform(-1, 1, (num_steps, rows, ACTION_DIM)).astype(np.float32)
            for part in np.array_split(actions, min(turns, num_steps)):
                for variant in variants:
                    gc.collect()
                    block = variant.run(part)
                    if index >= 0:
                        found[variant.name].rounds[index].append(block)
            check_states(variants)
    finally:
        gc.enable()
        gc.unfreeze()
        for variant in variants:
            variant.close()
    return found


def check_states(variants: Sequence[Variant]) -> None:
    """Compare the hands of what follows a native engine with those that it observes."""
    for follower in variants:
        if isinstance(follower, Follower):
            is_inside = ~follower.leader.track.has_ended[-1]  # elsewhere the leader shows the next episode
            seen = follower.leader.obs.reshape(len(is_inside), -1)[:, :3]
            np.testing.assert_array_equal(follower.hands()[is_inside], seen[is_inside], f"{follower.name} went astray")


def overhead(native: Speed, physics: Speed) -> tuple[float, float]:
    """Return what a vector step takes beyond its physics: median of the wall time, mean of the worker's CPU time.

    Blocks in which an episode ended are left out: they hold the vector steps that take longest by far.
    """
    pairs = [pair for rounds in zip(native.rounds, physics.rounds, strict=True) for pair in zip(*rounds, strict=True)]
    quiet = [(ours, alone) for ours, alone in pairs if not ours.has_ends] or pairs
    wall = np.concatenate([ours.wall - alone.wall for ours, alone in quiet])
    cpu = sum(ours.workers_cpu - alone.cpu for ours, alone in quiet) / len(wall)
    return float(np.median(wall)), cpu


def ratios(reference: Sequence[float], own: Sequence[float]) -> list[float]:
    """Return how many times faster than the reference each round was."""
    return [one / other for one, other in zip(reference, own, strict=True)]
