"""Does the native engine give the numbers of Meta-World's own classes?

Both take the same actions from the same goals on all 50 tasks: random ones, those of Meta-World's scripted policies,
the same with noise, and ones that saturate, twice as large as allowed. Twice over:
    single   one environment, whole episodes; every goal comes back with all kinds of actions, so that resets are both
             simulated and restored. After every step the whole state of the simulation is compared.
    vector   the vector environment, one copy for each kind of action, through its automatic resets into the next
             episodes; the state of the simulation is compared at every fiftieth step, and is not looked at between.

    python -m scripts.compare_engines --output results/engines.md

takes about half an hour on two idle cores and exits with 1 where anything differs that must not.
"""

import argparse
import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from mtrl import envs
from mtrl.envs.metaworld.goals import goal_vectors
from mtrl.envs.metaworld.sawyer import SawyerFactory
from mtrl.envs.metaworld.tasks import MAX_EPISODE_STEPS, MT50, NUM_GOALS
from mtrl.envs.worker_process import Transition
from mtrl.interfaces import Step
from mtrl.run_directory import describe_environment

KINDS = ("random", "policy", "noisy", "saturating")
NOISE = 0.1
TOO_LARGE = (-2.0, -1.0, 1.0, 2.0)
"""What saturating actions consist of."""

REWARD_TOLERANCE = 1e-12
"""Of rewards in float64, where sums may be formed in another order; as float32 they are equal."""

STEPS_BETWEEN_STATES = 50

Act = Callable[[np.ndarray], np.ndarray]
"""From an observation to an action."""


@dataclass
class Comparison:
    """What was compared, and how often it differed."""

    episodes: int = 0
    steps: int = 0
    states: int = 0
    solved_steps: int = 0
    different_states: int = 0
    """Of the simulation: time, qpos, qvel, warm start, controls, mocap; and of the float64 observation it shows."""
    different_observations: int = 0
    different_outcomes: int = 0
    """Steps at which success, termination, truncation, validity or goal differ."""
    different_rewards: int = 0
    """As float32."""
    largest_reward_difference: float = 0.0
    """As float64, which a single environment returns."""
    first: str = ""
    """Where something differed first."""

    @property
    def is_equal(self) -> bool:
        """Whether all is as it must be."""
        return not self.first

    def note(self, where: str, **differs: bool) -> None:
        """Count what differs among states, observations, outcomes and rewards."""
        found = [what for what, it_does in differs.items() if it_does]
        for what in found:
            setattr(self, f"different_{what}", getattr(self, f"different_{what}") + 1)
        if found and not self.first:
            self.first = f"{where}: {', '.join(found)}"


def main() -> None:
    """Write one table; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=MT50, default=list(MT50), metavar="TASK")
    parser.add_argument("--goals", type=int, default=3, help="of each task, spread over the 50 (default: %(default)s)")
    parser.add_argument("--goal-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2 * MAX_EPISODE_STEPS + 20, help="of the vector environment")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    args = parser.parse_args()
    if not 1 <= args.goals <= NUM_GOALS:
        parser.error(f"--goals {args.goals}, expected 1 to {NUM_GOALS}")
    if args.steps < 1:
        parser.error(f"--steps {args.steps}, expected 1 or more; an episode is {MAX_EPISODE_STEPS}")
    warnings.simplefilter("ignore")  # Meta-World's policies', about constants
    about: dict[str, Any] = describe_environment()
    goals = np.linspace(0, NUM_GOALS - 1, args.goals).astype(int).tolist()
    found = {}
    for task in args.tasks:
        found[task] = compare_single(task, goals, args.goal_seed)
        compare_vector((task,), [KINDS], args.steps, args.goal_seed, found)
        print(f"{task}: {found[task].first or 'equal'}", file=sys.stderr, flush=True)
    text = "\n".join(table(found, goals, about)) + "\n"
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    raise SystemExit(0 if all(one.is_equal for one in found.values()) else 1)


# ------------------------------------------------------------------------------------------------------------ comparing


def compare_single(
    task: str, goals: Sequence[int], goal_seed: int, kinds: Sequence[str] = KINDS, steps: int = MAX_EPISODE_STEPS
) -> Comparison:
    """Take the steps of one episode with every kind of action from every goal, in one environment of either engine."""
    vectors = goal_vectors("mt50", (task,), goal_seed)
    native, stock = (
        SawyerFactory(task_names=(task,), goals=vectors, engine=engine)(0, 0) for engine in ("native", "stock")
    )
    found = Comparison()
    for kind in kinds:
        for goal in goals:
            where, act = f"single, {kind} actions, goal {goal}", actions(task, kind, goal)
            first = native.reset(goal), stock.reset(goal)
            found.episodes += 1
            found.note(
                f"{where}, reset",
                observations=not np.array_equal(*first),
                states=not are_equal(native.get_state(), stock.get_state()),
            )
            obs = first[1]
            for step in range(steps):
                action = act(obs)
                ours, expected = native.step(action), stock.step(action)
                note_transitions(found, f"{where}, step {step}", ours, expected)
                found.states += 1
                is_same = are_equal(native.get_state(), stock.get_state())
                found.note(f"{where}, step {step}", states=not is_same)
                obs = expected.obs
    native.close()
    stock.close()
    return found


def note_transitions(found: Comparison, where: str, ours: Transition, expected: Transition) -> None:
    """Compare what a step of a single environment returned."""
    difference = abs(ours.reward - expected.reward)
    found.steps += 1
    found.solved_steps += expected.success
    found.largest_reward_difference = max(found.largest_reward_difference, difference)
    outcomes = [(one.terminated, one.truncated, one.success, one.valid) for one in (ours, expected)]
    is_near = difference <= REWARD_TOLERANCE and np.float32(ours.reward) == np.float32(expected.reward)
    found.note(
        where,
        observations=not np.array_equal(ours.obs, expected.obs),
        outcomes=outcomes[0] != outcomes[1],
        rewards=not is_near,
    )


def compare_vector(
    tasks: Sequence[str],
    kinds: Sequence[Sequence[str]],
    steps: int,
    goal_seed: int,
    found: dict[str, Comparison],
    seed: int = 0,
) -> None:
    """Take steps in a vector environment of either engine.

    Args:
        tasks: Of MT50.
        kinds: (task, env), the kind of actions for each.
        steps: Vector steps; episodes that end meanwhile are followed by others.
        goal_seed: Of the goals.
        found: What differs is added to that of the task.
        seed: Of the order of the goals.
    """
    name, copies = f"mt50:{','.join(tasks)}", len(kinds[0])
    acts = [
        [actions(task, kind, seed + env) for env, kind in enumerate(row)]
        for task, row in zip(tasks, kinds, strict=True)
    ]
    options: dict[str, Any] = {"seed": seed, "goal_seed": goal_seed, "envs_per_task": copies}
    with (
        closing(envs.make(name, engine="stock", **options)) as stock,
        closing(envs.make(name, engine="native", **options)) as native,
    ):
        obs, first = stock.reset(), native.reset()
        for task, ours, expected in zip(tasks, first, obs, strict=True):
            found.setdefault(task, Comparison()).episodes += copies
            found[task].note("vector, reset", observations=not np.array_equal(ours, expected))
        for step in range(steps):
            action = np.array(
                [[act(own) for act, own in zip(*row, strict=True)] for row in zip(acts, obs, strict=True)]
            )
            both = native.step(action), stock.step(action)
            for index, task in enumerate(tasks):
                for env, kind in enumerate(kinds[index]):
                    note_rows(found[task], f"vector, {kind} actions, step {step}", *both, (index, env))
            if step % STEPS_BETWEEN_STATES == 0 or step == steps - 1:
                states = zip(native.get_state()["envs"], stock.get_state()["envs"], strict=True)
                for row, (ours, expected) in enumerate(states):
                    task = tasks[row // copies]
                    found[task].states += 1
                    found[task].note(f"vector, step {step}", states=not are_equal(ours, expected))
            obs = both[1].obs


def note_rows(found: Comparison, where: str, ours: Step, expected: Step, at: tuple[int, int]) -> None:
    """Compare what a step of a vector environment returned for one of its environments."""
    found.steps += 1
    found.solved_steps += bool(expected.success[at])
    found.episodes += bool(expected.terminated[at] | expected.truncated[at])

    def differs(*names: str) -> bool:
        return not all(np.array_equal(getattr(ours, name)[at], getattr(expected, name)[at]) for name in names)

    found.note(
        where,
        observations=differs("obs", "final_obs"),
        outcomes=differs("terminated", "truncated", "success", "valid", "goal"),
        rewards=differs("reward"),
    )


def are_equal(ours: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Compare all that MuJoCo's next step depends on, and the half of an observation that is kept in float64."""
    frames = [state["attributes"]["_prev_obs"] for state in (ours, expected)]
    return np.array_equal(ours["simulation"], expected["simulation"]) and np.array_equal(*frames)


def actions(task: str, kind: str, seed: int) -> Act:
    """Return what acts on the task, as one of `KINDS` says."""
    policy, generator = ENV_POLICY_MAP[task](), np.random.default_rng(seed)

    def act(obs: np.ndarray) -> np.ndarray:
        if kind == "random":
            return generator.uniform(-1, 1, 4).astype(np.float32)
        if kind == "saturating":
            return generator.choice(TOO_LARGE, 4).astype(np.float32)
        noise = generator.normal(0, NOISE, 4) if kind == "noisy" else 0
        return np.clip(policy.get_action(obs) + noise, -1, 1).astype(np.float32)

    return act


# -------------------------------------------------------------------------------------------------------------- writing


def table(found: dict[str, Comparison], goals: Sequence[int], about: dict[str, Any]) -> list[str]:
    """Return the lines of the report."""
    versions = about["versions"] | {"numba": importlib.metadata.version("numba")}
    packages = ("python", "metaworld", "mujoco", "gymnasium", "numpy", "numba")
    named = ", ".join(f"{name} {versions[name]}" for name in packages)
    num_equal = sum(one.is_equal for one in found.values())
    text = f"""\
# The native engine beside Meta-World's own classes

**{num_equal} of {len(found)} tasks equal**, in {sum(one.steps for one in found.values()):,} steps of \
{sum(one.episodes for one in found.values()):,} episodes.

`python -m scripts.compare_engines {" ".join(sys.argv[1:])}`, {str(about["time"])[:10]},
commit {about["commit"]}; {about["cpu"]}; {named}.

Actions are {", ".join(KINDS[:-1])} and {KINDS[-1]}. Goals are {", ".join(map(str, goals))} in a single environment, and
in the vector environment those that its streams draw, through its automatic resets. A task is *equal* when these are
at every step, bit for bit: state of the simulation (time, qpos, qvel, warm start, controls, mocap; in the vector
environment at every {STEPS_BETWEEN_STATES}th step), observations, outcomes (success, termination, truncation, goal)
and rewards rounded to float32. In float64 rewards may be {REWARD_TOLERANCE:.0e} apart; *difference* is the largest.
*Solved* counts steps; without any, success was not put to the test.

| task | episodes | steps | solved | states compared | states | observations | outcomes | rewards | difference |
|---|---|---|---|---|---|---|---|---|---|"""
    first = [f"- {task}: {one.first}." for task, one in found.items() if not one.is_equal]
    rows = [_row(task, one) for task, one in found.items()]
    return [*text.splitlines(), *rows, *(["", "What differs first:", "", *first] if first else [])]


def _row(task: str, one: Comparison) -> str:
    counts = (one.different_states, one.different_observations, one.different_outcomes, one.different_rewards)
    judged = " | ".join(f"**{count} differ**" if count else "equal" for count in counts)
    numbers = f"{one.episodes} | {one.steps} | {one.solved_steps} | {one.states}"
    return f"| {task} | {numbers} | {judged} | {one.largest_reward_difference:.1e} |"


if __name__ == "__main__":
    main()
