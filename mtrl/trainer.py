"""The training loop: act, step, store, update, log, evaluate, save."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mtrl import checkpoint
from mtrl.acting import Explorer
from mtrl.divergence import ValueWatch
from mtrl.episodes import EpisodeStatistics
from mtrl.evaluator import MakeEnv, evaluate, spread_goals
from mtrl.files import StorageError, told
from mtrl.interfaces import Agent, BrokenEnvError, Step, VectorEnv
from mtrl.learner import Learner
from mtrl.memory import to_device
from mtrl.nonfinite import (
    NonFiniteActionError,
    NonFiniteError,
    check_action,
    check_obs,
    check_state,
    check_step,
)
from mtrl.profiling import TRACE_FILE, UpdateProfile
from mtrl.recorder import Recorder
from mtrl.replay import Replay
from mtrl.schedule import Config, total_steps
from mtrl.seeding import numpy_generator
from mtrl.signals import StopRequest
from mtrl.timing import Stopwatch

SAVE_AGAIN_SECONDS = 60.0
"""After a checkpoint that could not be written."""


class _StoppedError(Exception):
    """The run is to stop during an evaluation, which would otherwise delay the end of the run by minutes."""


class Trainer:
    """Trains one agent on one environment and keeps its run directory."""

    def __init__(
        self,
        config: Config,
        *,
        env: VectorEnv,
        make_eval_env: MakeEnv,
        agent: Agent,
        replay: Replay,
        batch_size: int,
        gamma: float,
        device: torch.device,
        run_dir: Path,
        stopwatch: Stopwatch,
        resume_from: Path | None = None,
    ) -> None:
        """Join the parts; with `resume_from`, a checkpoint, continue where it was written."""
        self.config = config
        self.env, self.make_eval_env, self.agent, self.replay = env, make_eval_env, agent, replay
        self.total_steps = total_steps(config, env.spec)
        self.device = device
        self.run_dir = run_dir
        self.stopwatch = stopwatch
        tell = {"warn": lambda line: self._recorder.say(f"warning: {line}")}
        self._explore = Explorer(agent, env.spec, device, is_recorded=config.compile == "auto", **tell)
        self.learner = Learner(
            config,
            agent,
            replay,
            batch_size=batch_size,
            device=device,
            task_names=env.spec.task_names,
            run_dir=run_dir,
            stopwatch=stopwatch,
            **tell,
        )
        self.step_count = 0
        """Environment steps so far, summed over tasks."""
        self._earlier_restarts = 0
        """Workers replaced before the run was resumed."""
        self._warmup_generator = numpy_generator(config.seed, "warmup")
        self._eval_goals = spread_goals(env.spec.num_goals, config.eval_goals)
        self._episodes = EpisodeStatistics(env.spec.num_tasks, env.spec.envs_per_task)
        self._values = ValueWatch(env.spec.task_names, gamma)
        self._evaluated_at = 0
        """Step of the last completed evaluation."""
        self._logged_at = 0
        """Step of the last record of training."""
        self.obs = self._load(resume_from) if resume_from else env.reset().copy()
        self._saved_at = self.step_count if resume_from else None
        self._checkpoint = resume_from
        self._save_again_at = math.inf
        self._stop = StopRequest()
        self._recorder = Recorder(
            run_dir,
            env.spec.task_names,
            self.total_steps,
            stopwatch,
            self.step_count,
            self.learner.update_count,
            checkpoint.load(resume_from, "records") if resume_from else {},
        )
        if config.profile:
            self.learner.trace(
                UpdateProfile(config.profile, device, stopwatch, run_dir / TRACE_FILE, self._recorder.say)
            )

    @property
    def steps_per_vector_step(self) -> int:
        """Environment steps that one call of `env.step` takes."""
        return self.env.spec.num_tasks * self.env.spec.envs_per_task

    def run(self, stop: StopRequest) -> None:
        """Train until the budget is used or `stop` was requested; save at the end in either case.

        An exception carries a note that tells after how many environment steps it came.

        Raises:
            NonFiniteError: An action, observation or reward is not finite; or a loss, gradient or temperature, and
                the run is not told to skip.
            BrokenEnvError: The environments failed for good; what was learned has been saved.
            StorageError: The run has ended and cannot be saved. Before its end that is no reason to stop.
        """
        try:
            self._run(stop)
        except Exception as failure:
            if isinstance(failure, NonFiniteError) and self.config.on_nonfinite == "save":
                self._save_if_intact(failure)
            failure.add_note(f"after {self.step_count:,} environment steps")
            raise

    def _run(self, stop: StopRequest) -> None:
        self._stop = stop
        check_obs(self.obs, self.env.spec.task_names)
        if self.step_count >= self.total_steps:
            self._recorder.say(f"already at step {self.step_count:,} of {self.total_steps:,}: raise --total-steps")
        if self._is_evaluation_missing():
            self._evaluate()
        while self.step_count < self.total_steps and stop.reason is None:
            self._advance()
            self._recorder.status(self.step_count, self.learner.update_count)
            if self._passed(self.config.log_every):
                self._log()
            if self._passed(self.config.eval_every):
                self._evaluate()
            if self._passed(self.config.checkpoint_every) or time.monotonic() >= self._save_again_at:
                self._try_to_save()
        self._finish(stop)

    def _finish(self, stop: StopRequest) -> None:
        """Record and save where the run ends, as far as the last step has not done so.

        A run that is stopped leaves no record: what it would tell goes into the checkpoint and the next one.
        """
        if stop.reason is None and self._logged_at != self.step_count:
            self._log()
        if stop.reason is None and self.config.eval_every and self._evaluated_at != self.step_count:
            self._evaluate()
        if self._saved_at != self.step_count:
            try:
                self.save()
            except OSError as problem:
                raise StorageError(f"the run has ended and cannot be saved: {told(problem)}") from problem
        if self.step_count < self.total_steps and stop.reason is not None:
            self._recorder.say(f"{stop.reason}: saved at step {self.step_count:,} in {self.run_dir}")
        self._recorder.say(self.stopwatch.budget())

    def close(self) -> None:
        """Close environments and files."""
        for part in (self.learner, self.env, self._recorder):
            part.close()

    def save(self) -> Path:
        """Write a checkpoint of everything; all records are on the disk before.

        Raises:
            OSError: The disk is full or cannot be written; it names the file. The last checkpoint is as it was.
            NonFiniteError: An update since the last record met a number that is not finite; nothing is written.
        """
        self.learner.check_finite()
        with self.stopwatch("checkpoints"):
            self._checkpoint = checkpoint.save(
                self.run_dir / "checkpoints",
                self.step_count,
                {
                    "agent": self.agent.state_dict(),
                    "replay": self.replay.state_dict(),
                    "env": self.env.get_state(),
                    "trainer": self._state(),
                    "records": self._recorder.flush(),
                },
                self.replay,
                self._checkpoint,
            )
        self._saved_at = self.step_count
        return self._checkpoint

    def _try_to_save(self) -> None:
        """Save; where that fails, say so and go on: it is tried again in a minute."""
        self._save_again_at = math.inf
        try:
            self.save()
        except OSError as problem:
            self._recorder.complain(problem)
            self._save_again_at = time.monotonic() + SAVE_AGAIN_SECONDS

    # ------------------------------------------------------------------------------------------- one vector step

    def _advance(self) -> None:
        """Take a vector step and learn: while the environments work, or, if synchronous, from what came of it too."""
        if self.config.synchronous:
            self._vector_step()
            self._learn()
        else:
            with self._stepping():
                self._learn()

    def _learn(self) -> None:
        for _ in range(self._due_updates()):
            self.learner.update()

    def _vector_step(self) -> None:
        """Act, step and store."""
        with self._stepping():
            pass

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        """Act; let the environments work during the body; store what came of it, whatever becomes of the body."""
        with self.stopwatch("acting"):
            action = self._act()
        check_action(action, self.env.spec.task_names)
        with self.stopwatch("environments"):
            self.env.step_async(action)
        try:
            yield
        finally:
            with self.stopwatch("environments"):
                step = self._step_wait()
            self._check_step(step)
            with self.stopwatch("replay"):
                self.replay.add(self.obs, action, step)
            self._episodes.add(step)
            self.obs = step.obs.copy()
            self.step_count += self.steps_per_vector_step

    def _step_wait(self) -> Step:
        try:
            return self.env.step_wait()
        except BrokenEnvError as failure:
            update = failure.__context__
            if isinstance(update, NonFiniteError):
                failure.add_note(f"(and beside it an update failed: {update})")
            has_to_save = self._saved_at != self.step_count
            if has_to_save and not (isinstance(update, NonFiniteError) and self.config.on_nonfinite == "raise"):
                self._save_what_was_learned(failure)
            raise

    def _save_what_was_learned(self, failure: Exception) -> None:
        """Save since environments failed: that must not cost what was learned since the last checkpoint."""
        try:
            self.save()
        except (OSError, NonFiniteError) as other:
            failure.add_note(f"(and it could not be saved: {other})")

    def _check_step(self, step: Step) -> None:
        """Raise if a number of the step is not finite; what is then saved begins new episodes."""
        try:
            check_step(step, self.env.spec.task_names)
        except NonFiniteError:
            if self.config.on_nonfinite == "save":
                self.obs = self.env.reset().copy()
                self._episodes.break_off()
                self._saved_at = None
            raise

    def _save_if_intact(self, failure: NonFiniteError) -> None:
        """Save since a number was not finite, unless what would be saved is broken itself."""
        if self._saved_at == self.step_count:
            return
        if isinstance(failure, NonFiniteActionError):
            failure.add_note("(not saved: the agent itself is broken)")
            return
        try:
            check_obs(self.obs, self.env.spec.task_names)
            check_state(self.agent.state_dict())
        except NonFiniteError as other:
            failure.add_note(f"(not saved: {other})")
            return
        self._save_what_was_learned(failure)

    def _act(self) -> Float[np.ndarray, "task env action"]:
        """Act at random during warm-up, with the exploring policy afterwards."""
        spec = self.env.spec
        if self._is_warming_up():
            shape = (spec.num_tasks, spec.envs_per_task, spec.action_dim)
            return self._warmup_generator.uniform(-1, 1, shape).astype(np.float32)
        return self._explore(self.obs)

    def _is_warming_up(self) -> bool:
        return self.step_count < self.config.warmup_steps * self.env.spec.num_tasks

    def _due_updates(self) -> int:
        return 0 if self._is_warming_up() else self.config.updates_per_step

    # --------------------------------------------------------------------------------- logging and evaluation

    def _is_evaluation_missing(self) -> bool:
        """Whether the run was stopped during an evaluation."""
        every = self.config.eval_every
        return every > 0 and self.step_count // every > self._evaluated_at // every

    def _passed(self, every: int) -> bool:
        """Whether the last vector step reached or crossed a multiple of `every`; never for 0."""
        return every > 0 and self.step_count // every > (self.step_count - self.steps_per_vector_step) // every

    def _log(self) -> None:
        """Write a record of training: the only place where metrics leave the device."""
        self.learner.check_finite()  # before anything says that there is a record
        self._logged_at = self.step_count
        self._saved_at = None  # a checkpoint of this step does not know of the record yet
        with self.stopwatch("logging"):
            values = self._episodes.pop() | self.learner.report()
            self._watch_values(values)
            values["worker_restarts"] = float(self._restarts)
            self._recorder.training(self.step_count, self.learner.update_count, values)

    def _watch_values(self, values: dict[str, Any]) -> None:
        """Warn if values are beyond what the rewards can justify."""
        if "q" in values:
            bonus = values.get("temperature", 0.0) * values.get("entropy", np.zeros(self.env.spec.num_tasks))
            self._values.look(values["q"], self.replay.largest_reward, bonus)

    def _evaluate(self) -> None:
        """Evaluate the deterministic policy, write a record and tell the person."""
        with self.stopwatch("evaluation"):
            try:
                result = evaluate(self.make_eval_env, self.env.spec.task_names, self._policy, self._eval_goals)
            except _StoppedError:
                return
            except Exception as failure:
                failure.add_note("in the evaluation")
                if not isinstance(failure, NonFiniteActionError):
                    self._save_what_was_learned(failure)
                raise
        self._evaluated_at = self.step_count
        self._saved_at = None  # a checkpoint of this step does not know of the evaluation yet
        with self.stopwatch("logging"):
            self._recorder.evaluation(self.step_count, result)

    def _policy(self, obs: Float[np.ndarray, "task env obs"]) -> Float[np.ndarray, "task env action"]:
        """Return the deterministic actions, or give up the evaluation where the run is told to stop.

        Raises:
            _StoppedError: A signal came, or time is up.
        """
        if self._stop.reason is not None:
            raise _StoppedError
        return self.agent.act_deterministic(to_device(obs, self.device)).cpu().numpy()

    # ------------------------------------------------------------------------------------------------------ state

    @property
    def _restarts(self) -> int:
        """Workers of the run's environments replaced so far."""
        return self._earlier_restarts + self.env.worker_restarts

    def _state(self) -> dict[str, Any]:
        return {
            "step_count": self.step_count,
            "worker_restarts": self._restarts,
            "logged_at": self._logged_at,
            "evaluated_at": self._evaluated_at,
            "warmup_generator": self._warmup_generator.bit_generator.state,
            "episodes": self._episodes.state_dict(),
        } | self.learner.state_dict()

    def _load(self, folder: Path) -> Float[np.ndarray, "task env obs"]:
        """Restore everything from a checkpoint; return the observations to act on."""
        state = checkpoint.load(folder, "trainer")
        self.step_count = state["step_count"]
        self._logged_at, self._evaluated_at = state["logged_at"], state["evaluated_at"]
        self._earlier_restarts = state["worker_restarts"]
        self._warmup_generator.bit_generator.state = state["warmup_generator"]
        self._episodes.load_state_dict(state["episodes"])
        self.learner.load_state_dict(state)
        self.agent.load_state_dict(checkpoint.load(folder, "agent", self.device))
        self.replay.load_state_dict(checkpoint.load(folder, "replay"))
        checkpoint.load_rows(folder, self.replay)
        return self.env.set_state(checkpoint.load(folder, "env")).copy()
