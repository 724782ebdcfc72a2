"""How long a run takes, where it works and how often it does what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtrl.interfaces import EnvSpec
from mtrl.precision import Precision

STEPS_PER_TASK = 2_000_000
"""The budget of the published MT10 and MT50 runs."""

MOST_PARALLEL = 4096
"""Copies of a task, processes, threads: more than any machine has use for, so that more are a slip of the keyboard."""

LONGEST_PROFILE = 1000
"""Updates in a trace, of which each takes a megabyte or two on the disk and several in memory."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long, where and how often."""

    seed: int = 0
    """Seed of networks, exploration, replay sampling and the order of goals."""
    goal_seed: int = 0
    """Seed of the goals of each task. Runs that differ only in --seed share their goals."""
    total_steps: int | None = None
    """Environment steps to take, summed over tasks; by default 2 million per task."""
    warmup_steps: int = 4000
    """Random steps per task before learning starts."""
    envs_per_task: int = 1
    """Copies of each task stepped side by side."""
    updates_per_step: int = 1
    """Updates for each vector step (one step of every environment)."""
    synchronous: bool = False
    """Whether to learn after each vector step, from its transitions too, and not while the environments take it."""
    workers: int | None = None
    """Environment processes; by default one per usable core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks and updates live; auto takes CUDA where there is one."""
    threads: int | None = None
    """CPU threads of the learner; by default torch decides."""
    compile: Literal["auto", "off"] = "auto"
    """auto: record the update and the policy after their first calls and repeat the records: CUDA graphs, or on a CPU
    lists of operations, whose results are the same bit for bit. That is checked at first and now and then; where it
    fails, a warning says so. The time of what is repeated is counted as "update", no longer as critic, actor,
    aggregation. off: compute everything step by step. Nothing is recorded with a replay on another device, or with
    rounded products on a CPU."""
    deterministic: bool = False
    """Whether a GPU may only use algorithms that give the same bits every time; slower. A CPU always does."""
    matmul_precision: Precision = "float32"
    """What updates may round the factors of matrix products to, for speed: tf32 on a GPU, bfloat16 on a CPU that has
    products of it. Sums, parameters and the inner products of gradients are as in float32; acting, evaluation and
    measurements happen in float32."""
    eval_every: int = 200_000
    """Environment steps (summed over tasks) between evaluations; 0 for none."""
    eval_goals: int = 5
    """Goals per task in each evaluation: always the same ones, spread evenly over all."""
    log_every: int = 10_000
    """Environment steps (summed over tasks) between log records."""
    transference_every: int = 500
    """Updates between measurements of how much one task's step helps another, averaged per record; 0 for none. One
    costs as much as 4 updates of 10 tasks, or 14 of 50."""
    checkpoint_every: int = 500_000
    """Environment steps (summed over tasks) between checkpoints; 0 for none but the one at the end."""
    on_nonfinite: Literal["raise", "skip", "save"] = "raise"
    """What to do when a loss or gradient is not finite: raise stops and leaves the checkpoints as they are, the right
    thing after a divergence; skip leaves that update out and counts it; save stops and saves first, as after a rare
    fault of an environment. Nothing has been learned from the number in any case. An action, observation or reward that
    is not finite always stops the run: save then saves what was learned before and lets new episodes begin, but not an
    agent whose actions are no numbers."""
    profile: int = 0
    """Updates to trace with torch's profiler, early in the run, where they are still computed step by step: writes the
    trace to RUN/profile.json and prints the dearest operations and what the time went into; 0 for none."""
    max_hours: float | None = None
    """Hours after which this process saves and ends, as for a job whose time is limited; by default no limit."""
    run_dir: Path | None = None
    """Folder of this run; by default runs/ENV-AGGREGATOR-SEED-DATE."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        least = {
            "seed": 0,
            "goal_seed": 0,
            "total_steps": 1,
            "warmup_steps": 1,
            "envs_per_task": 1,
            "updates_per_step": 0,
            "workers": 1,
            "threads": 1,
            "eval_every": 0,
            "eval_goals": 1,
            "log_every": 1,
            "transference_every": 0,
            "checkpoint_every": 0,
            "profile": 0,
        }
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {value}")
        for name in ("envs_per_task", "workers", "threads"):
            value = getattr(self, name)
            if value is not None and value > MOST_PARALLEL:
                raise ValueError(f"{name} must be at most {MOST_PARALLEL}, got {value}")
        if self.profile > LONGEST_PROFILE:
            raise ValueError(f"profile must be at most {LONGEST_PROFILE}, got {self.profile}")
        if self.max_hours is not None and not 0 < self.max_hours < float("inf"):
            raise ValueError(f"max_hours must be above 0, got {self.max_hours}")


def total_steps(config: Config, spec: EnvSpec) -> int:
    """Return the environment steps of a run, summed over tasks."""
    return config.total_steps or STEPS_PER_TASK * spec.num_tasks
