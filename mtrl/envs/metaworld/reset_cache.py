"""What every goal of a task starts from, simulated once and then kept: in memory, and on disk for later processes.

One file per goal, some 8 kB: SHA-256, then compressed by zlib a line of JSON, which is the state with its arrays
replaced by [type, shape], then the arrays' bytes. Reading one takes a tenth of a millisecond; as an .npz of thirty
arrays it would take over one.
"""

import hashlib
import json
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.cache import Store, origin
from mtrl.envs.worker_process import SingleEnv

SOURCES = ("sawyer.py", "snapshot.py", "reset_cache.py")
"""The code that makes and writes states."""

State = dict[str, Any]
"""What `SawyerEnv.get_state` returns: dictionaries, arrays, strings, numbers, None."""


class ResetCache:
    """The states right after the resets of one task.

    A state depends on task and goal alone. Two of its parts have no influence on anything: the last observation of the
    episode before, and in push and push-back where the goal's mark was drawn before the first step.
    """

    def __init__(self, task_name: str, goals: Float[np.ndarray, "goal vector"]) -> None:
        """Take a task and the random vectors of its goals: equal ones share their state, whatever their index."""
        self._store = Store(f"resets-{origin(*SOURCES)}/{task_name}")
        self._names = [_name(vector) for vector in goals]
        self._states: dict[int, State] = {}

    def state(self, goal: int, env: SingleEnv) -> State:
        """Return the state of the goal of that index, to be read only: from memory, from disk, or else by a reset."""
        if goal not in self._states:
            self._states[goal] = self.load(goal) or self._simulate(goal, env)
        return self._states[goal]

    def load(self, goal: int) -> State | None:
        """Return the state on disk, equal to the one saved in every type and bit; None where there is none."""
        content = self._store.load(self._names[goal])
        return None if content is None else {**_unpack(content), "goal": goal}

    def save(self, goal: int, state: State) -> None:
        """Keep a state on disk."""
        self._store.save(self._names[goal], _pack(state))

    def _simulate(self, goal: int, env: SingleEnv) -> State:
        with self._store.alone():
            state = self.load(goal)  # by a process that was here a moment ago
            if state is None:
                env.reset(goal)
                state = env.get_state()
                self.save(goal, state)
        return state


def _name(vector: Float[np.ndarray, " vector"]) -> str:
    return hashlib.sha256(f"{vector.dtype.str}\n".encode() + vector.tobytes()).hexdigest()[:32]


def _pack(state: State) -> bytes:
    arrays: list[np.ndarray] = []

    def outline(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: outline(item) for name, item in value.items()}
        if isinstance(value, np.ndarray):
            assert not value.dtype.hasobject  # their bytes are addresses
            arrays.append(value)
            return [value.dtype.str, value.shape]
        return value

    header = json.dumps(outline(state)).encode()  # one line; its floats round-trip
    return zlib.compress(b"\n".join([header, b"".join(array.tobytes() for array in arrays)]), level=1)


def _unpack(content: bytes) -> State:
    data = zlib.decompress(content)
    start = data.index(b"\n") + 1

    def fill(value: Any) -> Any:
        nonlocal start
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        if isinstance(value, list):
            array = np.ndarray(value[1], value[0], data, start).copy()
            start += array.nbytes
            return array
        return value

    return fill(json.loads(data[: start - 1]))
