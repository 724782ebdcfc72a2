"""Does our evaluator find what Meta-World's own evaluation finds?

Meta-World's scripted policies visit every goal of every task once, three times over:
    ours         `mtrl.evaluator.evaluate` on our environments
    evaluation   `metaworld.evaluation.evaluation` on stock environments; it ends an episode where it is first solved
    to the end   stock environments stepped to the time limit, as training and our evaluator do
and everything that two of them both tell must be equal, bit for bit, episode by episode:

    python scripts/compare_with_stock.py --output results/stock_agreement.md

takes about half an hour on an idle core. A run that was cut off continues where it was (`--records`).
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import metaworld
import numpy as np
from metaworld.evaluation import evaluation
from metaworld.policies import ENV_POLICY_MAP

from mtrl import envs
from mtrl.envs.metaworld.tasks import MT50, NUM_GOALS
from mtrl.evaluator import Policy, evaluate
from mtrl.interfaces import EnvSpec, Step, VectorEnv
from mtrl.run_directory import describe_environment

Numbers = dict[str, list[float]]
"""What one way of evaluating found: a quantity by name -> its value for every goal."""

SOLVED, SOLVED_AT_END, RETURN, RETURN_UNTIL_SOLVED = "solved", "solved_at_end", "return", "return_until_solved"


def main() -> None:
    """Write one table; exit with 1 if any episode differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=MT50, default=list(MT50), metavar="TASK")
    parser.add_argument("--goals", type=int, default=NUM_GOALS, help="the first goals of each task")
    parser.add_argument("--goal-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    parser.add_argument("--records", type=Path, default=Path("runs/stock_agreement.jsonl"), help="every episode")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "Constant.* may be too high")  # from Meta-World's policies
    about: dict[str, Any] = describe_environment()
    about["command"] = ["scripts/compare_with_stock.py", *sys.argv[1:]]
    args.records.parent.mkdir(parents=True, exist_ok=True)
    # What was found with other code or versions is found again.
    settings = {"goals": args.goals, "goal_seed": args.goal_seed, "commit": about["commit"]} | about["versions"]
    found = _read(args.records, settings)
    with args.records.open("a", encoding="utf-8") as file:
        for task in args.tasks:
            if task not in found:
                found[task] = compare(task, args.goals, args.goal_seed)
                file.write(json.dumps({"task": task, **settings, "found": found[task]}) + "\n")
                file.flush()
    subject = f"Meta-World's scripted policies on {len(args.tasks)} tasks x {args.goals} goals"
    subject += f" (`MT1(task, seed={args.goal_seed})`)"
    lines = table({task: found[task] for task in args.tasks}, subject, about)
    text = "\n".join(lines) + "\n"
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    is_equal = all(len(equal_episodes(found[task])) == args.goals for task in args.tasks)
    raise SystemExit(0 if is_equal else 1)


def compare(task: str, num_goals: int, goal_seed: int) -> dict[str, Numbers]:
    """Evaluate the task's scripted policy in the three ways."""
    policy = scripted((task,))
    (ours,) = run_ours(f"mt1:{task}", (task,), policy, num_goals, goal_seed)
    make = partial(stock_env, task, num_goals, goal_seed)
    (stopped,) = run_stock_evaluation([make], policy, num_goals)
    (to_the_end,) = run_stock_to_the_end([make], policy, num_goals)
    return {"ours": ours, "evaluation": stopped, "to the end": to_the_end}


def scripted(task_names: Sequence[str]) -> Policy:
    """Return Meta-World's scripted policies of the tasks as one policy."""
    policies = [ENV_POLICY_MAP[name]() for name in task_names]

    def act(obs: np.ndarray) -> np.ndarray:
        actions = [[policy.get_action(row) for row in rows] for policy, rows in zip(policies, obs, strict=True)]
        return np.array(actions, dtype=np.float32)

    return act


# ------------------------------------------------------------------------------------------------------------- ours


class UntilSolved:
    """Environments that also add up the rewards of every episode to its first solved step, as float64."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.rounds: list[np.ndarray] = []

    @property
    def spec(self) -> EnvSpec:
        """Names and sizes."""
        return self._env.spec

    @property
    def worker_restarts(self) -> int:
        """Those of the environments."""
        return self._env.worker_restarts

    def reset(self, goal: np.ndarray | None = None) -> np.ndarray:
        """Begin a new round of episodes."""
        self._is_open = np.ones((self.spec.num_tasks, self.spec.envs_per_task), dtype=bool)
        self.rounds.append(np.zeros(self._is_open.shape))
        return self._env.reset(goal)

    def step(self, action: np.ndarray) -> Step:
        """Step, and add up."""
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: np.ndarray) -> None:
        """Begin a step."""
        self._env.step_async(action)

    def step_wait(self) -> Step:
        """Finish the step, and add up."""
        step = self._env.step_wait()
        self.rounds[-1][self._is_open] += step.reward[self._is_open]
        self._is_open &= ~(step.success | step.terminated | step.truncated)
        return step

    def get_state(self) -> dict[str, Any]:
        """Return the state of the environments."""
        return self._env.get_state()

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Restore it."""
        return self._env.set_state(state)

    def render(self, camera: str | None = None, **options: Any) -> np.ndarray:
        """Look at the environments."""
        return self._env.render(camera, **options)

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def run_ours(
    name: str, task_names: tuple[str, ...], policy: Policy, num_goals: int, goal_seed: int, workers: int = 1
) -> list[Numbers]:
    """Evaluate the tasks of the environment `name`, at most ten, with our evaluator; one result per task."""
    watched: list[UntilSolved] = []

    def make_env(tasks: tuple[str, ...], copies: int) -> VectorEnv:
        suite, _ = envs.parse(name)
        env = envs.make(f"{suite}:{','.join(tasks)}", goal_seed=goal_seed, envs_per_task=copies, workers=workers)
        watched.append(UntilSolved(env))
        return watched[-1]

    result = evaluate(make_env, task_names, policy, np.arange(num_goals))
    (env,) = watched
    until_solved = np.concatenate(env.rounds, axis=1)[:, :num_goals]
    return [
        {
            SOLVED: result.success[task].astype(float).tolist(),
            SOLVED_AT_END: result.success_at_end[task].astype(float).tolist(),
            RETURN: result.returns[task].tolist(),
            RETURN_UNTIL_SOLVED: until_solved[task].tolist(),
        }
        for task in range(len(task_names))
    ]


# ------------------------------------------------------------------------------------------------------------ stock


class Episodes(gym.Wrapper):
    """Remembers what happened in the episodes of a stock environment, and visits every goal once before any twice.

    Meta-World's default draws goals with replacement; `task_select="pseudorandom"` shuffles them instead.
    """

    def __init__(self, env: gym.Env, num_goals: int) -> None:
        super().__init__(env)
        self.goals = tuple(env.get_wrapper_attr("tasks")[:num_goals])
        env.set_wrapper_attr("tasks", list(self.goals))
        env.get_wrapper_attr("toggle_sample_tasks_on_reset")(True)
        self.episodes: list[dict[str, float]] = []

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        result = self.env.reset(**options)
        chosen = self.env.get_wrapper_attr("tasks")[self.env.get_wrapper_attr("current_task_idx")]
        self.episodes.append({"goal": self.goals.index(chosen), SOLVED: 0.0, SOLVED_AT_END: 0.0, RETURN: 0.0})
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; rewards are added up as ours are: each rounded to float32, their sum in float64."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        episode = self.episodes[-1]
        episode[RETURN] += float(np.float32(reward))
        episode[SOLVED_AT_END] = float(info["success"])
        episode[SOLVED] = max(episode[SOLVED], episode[SOLVED_AT_END])
        return obs, reward, terminated, truncated, info


class StockAgent:
    """A policy as `metaworld.evaluation` wants it: one environment of each task, in the policy's order."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions on observations (task, obs), as float32, which is what our policies see."""
        return self.policy(observations.astype(np.float32)[:, None])[:, 0]

    def reset(self, env_mask: np.ndarray) -> None:
        """Nothing to forget."""


def stock_env(task: str, num_goals: int, goal_seed: int) -> Episodes:
    """Build the stock environment of the task with the first goals of its benchmark MT1."""
    env = metaworld.make_mt_envs(task, seed=goal_seed, task_select="pseudorandom")
    assert isinstance(env, gym.Env)
    return Episodes(env, num_goals)


def run_stock_evaluation(make_envs: Sequence[partial[Episodes]], policy: Policy, num_goals: int) -> list[Numbers]:
    """Run `metaworld.evaluation.evaluation`; one result per task, with the return it reports itself."""
    vector = gym.vector.SyncVectorEnv(make_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    _, _, success_rates, returns = evaluation(StockAgent(policy), vector, num_episodes=num_goals)
    results = []
    for env, name in zip(vector.envs, _task_names(make_envs), strict=True):
        assert isinstance(env, Episodes)
        episodes = env.episodes[:num_goals]
        assert success_rates[name] == sum(episode[SOLVED] for episode in episodes) / num_goals
        results.append(
            _by_goal(
                {
                    "goal": episode["goal"],
                    SOLVED: episode[SOLVED],
                    RETURN_UNTIL_SOLVED: episode[RETURN],
                    "reported": own,
                }
                for episode, own in zip(episodes, returns[name], strict=True)
            )
        )
    vector.close()
    return results


def run_stock_to_the_end(make_envs: Sequence[partial[Episodes]], policy: Policy, num_goals: int) -> list[Numbers]:
    """Step stock environments to their time limit; one result per task, with the return they report themselves."""
    stock = [make() for make in make_envs]
    agent = StockAgent(policy)
    reported: list[list[float]] = [[] for _ in stock]
    for _ in range(num_goals):
        obs = np.stack([env.reset()[0] for env in stock])
        infos: list[dict[str, Any]] = [{}]
        while "episode" not in infos[0]:  # which the last step brings, for all together: they have one time limit
            steps = [env.step(action) for env, action in zip(stock, agent.eval_action(obs), strict=True)]
            obs = np.stack([step[0] for step in steps])
            infos = [step[4] for step in steps]
        for own, info in zip(reported, infos, strict=True):
            own.append(float(info["episode"]["r"]))
    results = [
        _by_goal(episode | {"reported": value} for episode, value in zip(env.episodes, own, strict=True))
        for env, own in zip(stock, reported, strict=True)
    ]
    for env in stock:
        env.close()
    return results


def _task_names(make_envs: Sequence[partial[Episodes]]) -> list[str]:
    return [make.args[0] for make in make_envs]


def _by_goal(episodes: Any) -> Numbers:
    """Sort episodes by goal, of which every one must have been visited once."""
    ordered = sorted(episodes, key=lambda episode: episode["goal"])
    assert [episode["goal"] for episode in ordered] == list(range(len(ordered)))
    return {name: [episode[name] for episode in ordered] for name in ordered[0] if name != "goal"}


# ------------------------------------------------------------------------------------------------------- comparison


def equal_episodes(found: dict[str, Numbers]) -> list[int]:
    """Return the goals whose episodes are equal in everything that two of the ways both tell."""
    ours = found["ours"]
    pairs = [
        (ours[name], found[stock][name])
        for stock, names in {
            "evaluation": (SOLVED, RETURN_UNTIL_SOLVED),
            "to the end": (SOLVED, SOLVED_AT_END, RETURN),
        }.items()
        for name in names
    ]
    return [goal for goal in range(len(ours[SOLVED])) if all(a[goal] == b[goal] for a, b in pairs)]


def largest_difference(found: dict[str, Numbers]) -> float:
    """Return how far our returns are at most from the sums that stock environments report themselves."""
    ours = found["ours"]
    pairs = ((RETURN, "to the end"), (RETURN_UNTIL_SOLVED, "evaluation"))
    differences = [np.subtract(ours[name], found[stock]["reported"]) for name, stock in pairs]
    return float(np.abs(differences).max())


def table(found: dict[str, dict[str, Numbers]], subject: str, about: dict[str, Any]) -> list[str]:
    """Return the lines of the report; `subject` says whose episodes they are, and which."""
    versions = about["versions"]
    assert isinstance(versions, dict)
    num_equal = sum(len(equal_episodes(numbers)) for numbers in found.values())
    num_episodes = sum(len(numbers["ours"][SOLVED]) for numbers in found.values())
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "metaworld", "mujoco", "gymnasium", "numpy"))
    text = f"""\
# Agreement with Meta-World's own evaluation

{subject}: **{num_equal} of {num_episodes} episodes equal**.

`python {" ".join(map(str, about["command"]))}`, {str(about["time"])[:10]},
commit {about["commit"]}; {named}.

An episode is *equal* when our evaluator and `metaworld.evaluation.evaluation` agree on whether it was solved and on its
return until then, and our evaluator and stock environments stepped to the time limit agree on solved, solved at the
last step, and return: bit for bit, every reward rounded to float32 and their sum in float64. *Difference* is the
largest one between our return and the sum that the stock environment reports itself, which it forms in float32 where
one of its rewards is a float32, and without rounding its rewards elsewhere.

| task | solved: ours | `evaluation` | at the end: ours | stock | return: ours | stock | equal | difference |
|---|---|---|---|---|---|---|---|---|"""
    lines = text.splitlines()
    return lines + [_row(task, numbers) for task, numbers in found.items()] + [_mean_row(found)]


def _row(task: str, numbers: dict[str, Numbers]) -> str:
    values = _means(numbers)
    cells = [f"{value:.2f}" for value in values[:4]] + [f"{value:.1f}" for value in values[4:]]
    equal = f"{len(equal_episodes(numbers))} of {len(numbers['ours'][SOLVED])}"
    return f"| {task} | {' | '.join(cells)} | {equal} | {largest_difference(numbers):.1e} |"


def _mean_row(found: dict[str, dict[str, Numbers]]) -> str:
    values = np.mean([_means(numbers) for numbers in found.values()], axis=0)
    cells = [f"{value:.4f}" for value in values[:4]] + [f"{value:.1f}" for value in values[4:]]
    num_equal = sum(len(equal_episodes(numbers)) for numbers in found.values())
    num_episodes = sum(len(numbers["ours"][SOLVED]) for numbers in found.values())
    largest = max(map(largest_difference, found.values()))
    return f"| **mean** | {' | '.join(cells)} | {num_equal} of {num_episodes} | {largest:.1e} |"


def _means(numbers: dict[str, Numbers]) -> list[float]:
    ours, stopped, to_the_end = numbers["ours"], numbers["evaluation"], numbers["to the end"]
    columns = (
        ours[SOLVED],
        stopped[SOLVED],
        ours[SOLVED_AT_END],
        to_the_end[SOLVED_AT_END],
        ours[RETURN],
        to_the_end["reported"],
    )
    return [float(np.mean(column)) for column in columns]


def _read(records: Path, settings: dict[str, Any]) -> dict[str, dict[str, Numbers]]:
    lines = map(json.loads, records.read_text(encoding="utf-8").splitlines()) if records.exists() else ()
    return {line["task"]: line["found"] for line in lines if settings.items() <= line.items()}


if __name__ == "__main__":
    main()
