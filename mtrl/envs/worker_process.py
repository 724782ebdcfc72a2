"""The process that steps environments: what runs in it, and what an environment must offer to run in it.

This module and everything it imports stays free of torch: a worker holds the simulator and nothing else.
"""

import ctypes
import enum
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from mtrl.envs.channel import Channel, frame
from mtrl.envs.shared_arrays import IDLE, SharedArrays, Sizes, attach
from mtrl.signals import HANDLED

PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>: the signal the kernel sends to this process when its parent dies."""


class Transition(NamedTuple):
    """What one step of one environment returns."""

    obs: Float[np.ndarray, " obs"]
    """The successor of the observation acted on; never the first one of another episode."""
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    valid: bool = True
    """False ends the episode and says that this is no real transition."""
    info: Mapping[str, float] = MappingProxyType({})
    """Further numbers about the step, at least those that `EnvSpec.info_names` asks for where it is valid."""


@runtime_checkable
class SingleEnv(Protocol):
    """One copy of one task. Lives in a worker process and never crosses its border."""

    def reset(self, goal: int) -> Float[np.ndarray, " obs"]:
        """Start an episode with the goal of that index."""
        ...

    def step(self, action: Float[np.ndarray, " action"]) -> Transition:
        """Advance by one action; do not reset at the end of the episode."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Return everything that determines the future, as plain types and arrays."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned, also in an environment that was never reset."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


class Batch(NamedTuple):
    """What steps all environments of a process."""

    step: Callable[[], bool]
    """Steps each once and says whether an episode can have ended."""
    serve: Callable[[int, bytes, bytes], bytes | None] | None
    """Where there is a shorter way to go on: given the descriptor, a framed `STEP` and a framed `SUCCESS`, steps,
    answers and waits for the next order as long as that is to step. Returns what else arrived, or None where an
    episode can have ended: that step is not answered yet."""


@runtime_checkable
class BatchedEnv(SingleEnv, Protocol):
    """A `SingleEnv` that can be stepped together with all others of its kind in a process."""

    @staticmethod
    def batch(
        envs: Mapping[int, Any], rows: Shaped[np.ndarray, " row"], progress: Int[np.ndarray, " worker"], worker: int
    ) -> Batch:
        """Return what steps environments together.

        Args:
            envs: By row.
            rows: See `SharedArrays`: with the actions; everything else is to be written.
            progress: See `SharedArrays`.
            worker: Place in `progress`.
        """
        ...


@runtime_checkable
class Visible(Protocol):
    """What a `SingleEnv` also is where `EnvSpec.cameras` names cameras."""

    def render(self, camera: str, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an upright picture of the present state. Must not change what the environment does next.

        Raises:
            RenderingError: This machine cannot.
        """
        ...


class RenderingError(RuntimeError):
    """Pictures cannot be made on this machine, or not of this size. Nothing else has suffered."""


View = tuple[str, int, int]
"""Camera, width and height of a picture."""

EnvFactory = Callable[[int, int], SingleEnv]
"""Builds the environment of (task index, environment index). Pickled by reference: a function or object of a module."""


class Command(enum.Enum):
    """What the parent can ask for. Arrays travel in the shared memory, all else with the command."""

    STEP = "step"
    RESET = "reset"
    GET_STATE = "get_state"
    SET_STATE = "set_state"
    RENDER = "render"
    CLOSE = "close"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told once."""

    worker: int
    rows: tuple[int, ...]
    envs_per_task: int
    make_env: EnvFactory
    sizes: Sizes


class Reply(NamedTuple):
    """The answer to a command: a result, or where and how the worker failed."""

    result: Any = None
    failure: str | None = None
    """One line that says what was raised, an empty one, and the traceback."""
    row: int = IDLE


STEP = pickle.dumps((Command.STEP, None))
"""The commonest order, ready to be sent and recognised."""

SUCCESS = pickle.dumps(Reply())
"""The answer to it."""


class Answered(NamedTuple):
    """In the place of a result: the answer has been sent already, and this has been read since."""

    received: bytes


def main() -> None:
    """Serve the parent until it closes the connection or ends. The arguments come from `child`."""
    connection_descriptor, memory_descriptor, parent, signal_on_death = map(int, sys.argv[1:5])
    # Terminals and schedulers send them to the whole group; the parent decides, and may want the workers' state.
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # a mask would pass to what environments start
    if signal_on_death:
        _die_with(parent)
    threading.Thread(target=_exit_at_hangup, args=(connection_descriptor,), daemon=True).start()
    channel = Channel(socket.socket(fileno=connection_descriptor))
    message = channel.receive()
    try:
        job = pickle.loads(message)
    except Exception as failure:  # noqa: BLE001 - whatever unpickling raises is the parent's to report
        channel.send(pickle.dumps(Reply(failure=_describe(failure))))
        return
    _serve(channel, _Worker(job, attach(memory_descriptor, job.sizes), channel))


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _exit_at_hangup(descriptor: int) -> None:
    """End the process, however busy, when the parent's end of the connection closes."""
    poller = select.poll()
    poller.register(descriptor, 0)  # no events asked for: only hang-up and error are reported
    poller.poll()
    os._exit(1)


def _serve(channel: Channel, worker: "_Worker") -> None:
    handlers = {
        Command.STEP: worker.step,
        Command.RESET: worker.reset,
        Command.GET_STATE: worker.get_state,
        Command.SET_STATE: worker.set_state,
        Command.RENDER: worker.render,
        Command.CLOSE: worker.close,
    }
    handler, payload = worker.build, None
    while True:
        try:
            reply = Reply(handler(payload))
        except Exception as failure:  # noqa: BLE001 - whatever an environment raises is the parent's to report
            reply = Reply(failure=_describe(failure), row=worker.busy_with)
        if isinstance(reply.result, Answered):
            channel.put_back(reply.result.received)
        else:
            channel.send(SUCCESS if reply.result is None and not reply.failure else pickle.dumps(reply))
        if handler == worker.close or reply.failure:
            return
        try:
            order = channel.receive()
        except ConnectionError:  # the parent has ended
            return
        if order == STEP:
            handler, payload = worker.step, None
        else:
            command, payload = pickle.loads(order)
            handler = handlers[command]


def _describe(failure: Exception) -> str:
    headline = " ".join(f"{type(failure).__name__}: {failure}".split())
    return f"{headline}\n\n{''.join(traceback.format_exception(failure))}"


class _Worker:
    """The environments of one process."""

    def __init__(self, job: Job, arrays: SharedArrays, channel: Channel) -> None:
        self._job = job
        self._arrays = arrays
        self._envs: dict[int, SingleEnv] = {}
        self._channel = channel
        self._batch = Batch(self._step_each, None)

    @property
    def busy_with(self) -> int:
        """The row being worked on, or `IDLE`."""
        return int(self._arrays.progress[self._job.worker])

    def build(self, _: None) -> None:
        for row in self._mark(self._job.rows):
            self._envs[row] = self._job.make_env(*divmod(row, self._job.envs_per_task))
        kinds = {type(env) for env in self._envs.values()}
        kind = kinds.pop()
        if not kinds and issubclass(kind, BatchedEnv):
            self._batch = kind.batch(self._envs, self._arrays.rows, self._arrays.progress, self._job.worker)

    def reset(self, _: None) -> None:
        for row in self._mark(self._envs):
            self._arrays.obs[row] = self._envs[row].reset(int(self._arrays.goal[row]))

    def step(self, _: None) -> Answered | None:
        arrays = self._arrays
        is_broken = arrays.broken.any()
        broken = {row: arrays.obs[row].copy() for row in self._envs if is_broken and arrays.broken[row]}
        # `serve` reads from the descriptor: an order that is in the channel already would wait for the next one.
        if self._batch.serve is not None and not broken and not self._channel.holds_more:
            received = self._batch.serve(self._channel.fileno(), frame(STEP), frame(SUCCESS))
            if received is not None:
                return Answered(received)
            has_ended = True
        else:
            has_ended = len(broken) < len(self._envs) and self._batch.step()  # the action may be what broke them all
        for row, obs in broken.items():
            arrays.final_obs[row] = obs
            arrays.reward[row] = 0
            arrays.terminated[row] = arrays.success[row] = arrays.valid[row] = False
            arrays.truncated[row] = True
            arrays.info[row] = 0
        if has_ended or broken:
            ended = [row for row in self._envs if arrays.terminated[row] or arrays.truncated[row]]
            for row in self._mark(ended):
                arrays.obs[row] = self._envs[row].reset(int(arrays.goal[row]))
        return None

    def _step_each(self) -> bool:
        """Step one environment after the other and say whether an episode ended."""
        arrays, info_names = self._arrays, self._job.sizes.info_names
        has_ended = False
        for row in self._mark(self._envs):
            transition = self._envs[row].step(arrays.action[row])
            arrays.obs[row] = arrays.final_obs[row] = transition.obs
            arrays.reward[row] = transition.reward
            arrays.terminated[row] = transition.terminated
            arrays.truncated[row] = transition.truncated or not transition.valid
            arrays.success[row] = transition.success
            arrays.valid[row] = transition.valid
            if info_names:
                arrays.info[row] = [transition.info[name] for name in info_names] if transition.valid else 0.0
            has_ended = has_ended or transition.terminated or transition.truncated or not transition.valid
        return has_ended

    def get_state(self, _: None) -> dict[int, dict[str, Any]]:
        return {row: self._envs[row].get_state() for row in self._mark(self._envs)}

    def set_state(self, states: dict[int, dict[str, Any]]) -> None:
        for row in self._mark(self._envs):
            self._envs[row].set_state(states[row])

    def render(self, views: dict[int, View | None]) -> dict[int, np.ndarray | RenderingError]:
        wanted = {row: view for row, view in views.items() if view is not None}
        return {row: self._picture(row, wanted[row]) for row in self._mark(wanted)}

    def close(self, _: None) -> None:
        for row in self._mark(self._envs):
            self._envs[row].close()

    def _picture(self, row: int, view: View) -> np.ndarray | RenderingError:
        env = self._envs[row]
        assert isinstance(env, Visible), "EnvSpec.cameras names cameras, and the environment has none"
        try:
            return env.render(*view)
        except RenderingError as error:  # an answer, not a failure: whoever asked can go on without pictures
            return error

    def _mark(self, rows: Iterable[int]) -> Iterator[int]:
        """Yield the rows; say in shared memory which one is being worked on."""
        progress = self._arrays.progress
        for row in rows:
            progress[self._job.worker] = row
            yield row
        progress[self._job.worker] = IDLE
