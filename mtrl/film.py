"""Episodes as pictures: environments that film themselves while somebody else steps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from mtrl.interfaces import EnvSpec, Step, VectorEnv


@dataclass(frozen=True, kw_only=True)
class Look:
    """From where, how large and how often pictures are taken, and when enough has been seen."""

    camera: str
    size: int
    """Width and height in pixels."""
    every: int
    """Steps from one picture to the next."""
    linger: int | None
    """Steps still shown of an episode that is solved; all of it where None."""


@dataclass
class Clip:
    """What was seen of one episode."""

    frames: list[UInt8[np.ndarray, "height width 3"]] = field(default_factory=list)
    solved_from: int | None = None
    """Index of the first frame of what had been solved by then; None where nothing was."""
    solved_at: int | None = None
    """The step that solved it, from 1."""
    is_lost: bool = False
    """Whether it broke off in an invalid step; the evaluator runs it once more."""


Clips = dict[tuple[str, int], Clip]
"""By task and goal."""


class FilmedEnv:
    """One copy of each task, filmed from every reset until `Look.linger` says that enough was seen.

    Passes everything on to the environments, and their answers back, but for one thing: where all tasks have shown
    enough, the step says that the episodes are `truncated`, and the next call has to be a reset.
    """

    def __init__(self, env: VectorEnv, look: Look, clips: Clips) -> None:
        """Take environments, one per task; add what they show to `clips`."""
        assert env.spec.envs_per_task == 1
        self._env = env
        self._look = look
        self._clips = clips
        self._time = 0
        self._filmed: dict[str, Clip] = {}

    @property
    def spec(self) -> EnvSpec:
        """Names and sizes."""
        return self._env.spec

    @property
    def worker_restarts(self) -> int:
        """Processes of environments replaced so far."""
        return self._env.worker_restarts

    def reset(self, goal: Int[np.ndarray, "task env"] | None = None) -> Float[np.ndarray, "task env obs"]:
        """Start the episodes of these goals, and film those that have not been filmed whole.

        Raises:
            RenderingError: This machine cannot make pictures.
        """
        assert goal is not None, "a clip is named by its goal"
        obs = self._env.reset(goal)
        self._time = 0
        self._filmed = {}
        for task, index in zip(self.spec.task_names, goal[:, 0].tolist(), strict=True):
            old = self._clips.get((task, index))
            if old is None or old.is_lost:
                self._clips[task, index] = self._filmed[task] = Clip()
        self._take(list(self._filmed))
        return obs

    def step(self, action: Float[np.ndarray, "task env action"]) -> Step:
        """Advance every environment, and take a picture at every so many steps."""
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Float[np.ndarray, "task env action"]) -> None:
        """Begin a step."""
        self._env.step_async(action)

    def step_wait(self) -> Step:
        """Finish the step, and take a picture at every so many."""
        step = self._env.step_wait()
        self._time += 1
        has_ended = (step.terminated | step.truncated)[:, 0]
        for task, name in enumerate(self.spec.task_names):
            clip = self._filmed.get(name)
            if clip is None:
                continue
            if step.success[task, 0] and clip.solved_at is None:
                clip.solved_at, clip.solved_from = self._time, len(clip.frames)
            if not step.valid[task, 0]:
                clip.is_lost, clip.solved_at, clip.solved_from = True, None, None
            if has_ended[task]:  # what could be seen now is the next episode
                if clip.solved_from == len(clip.frames):
                    clip.frames.append(clip.frames[-1])
                del self._filmed[name]
        if self._time % self._look.every == 0:
            self._take(list(self._filmed))
        self._filmed = {name: clip for name, clip in self._filmed.items() if not self._is_enough(clip)}
        return step if self._filmed else step._replace(truncated=np.ones_like(step.truncated))

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs; the film is no part of it."""
        return self._env.get_state()

    def set_state(self, state: dict[str, Any]) -> Float[np.ndarray, "task env obs"]:
        """Restore what `get_state` returned; nothing is filmed until the next reset."""
        self._filmed = {}
        return self._env.set_state(state)

    def render(
        self,
        camera: str | None = None,
        *,
        width: int = 480,
        height: int = 480,
        tasks: Sequence[str] | None = None,
        envs: Sequence[int] | None = None,
    ) -> UInt8[np.ndarray, "task env height width 3"]:
        """Return pictures that are no part of the film."""
        return self._env.render(camera, width=width, height=height, tasks=tasks, envs=envs)

    def close(self) -> None:
        """Free processes and shared memory; the clips stay."""
        self._env.close()

    def _take(self, tasks: Sequence[str]) -> None:
        if not tasks:
            return
        size = self._look.size
        for task, pictures in zip(
            tasks, self._env.render(self._look.camera, width=size, height=size, tasks=tasks), strict=True
        ):
            self._filmed[task].frames.append(pictures[0])

    def _is_enough(self, clip: Clip) -> bool:
        if self._look.linger is None or clip.solved_at is None or clip.solved_from == len(clip.frames):
            return False
        return self._time >= clip.solved_at + self._look.linger


def solved(clips: Mapping[tuple[str, int], Clip]) -> int:
    """Return how many of the episodes were solved."""
    return sum(clip.solved_at is not None for clip in clips.values())
