"""Start worker processes, ask them all, and end them: in order, at a failure, or when the parent ends.

Plain child processes instead of `multiprocessing`: its workers import the user's main module (and with it torch, 200 MB
each), need a main guard in every script, and leave a fork server and a resource tracker behind. These inherit two
descriptors, a connection and the shared memory, and end when the first closes. POSIX only.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

from mtrl.envs.shared_arrays import IDLE, SharedArrays, Sizes, allocate, attach
from mtrl.envs.worker_process import STEP, SUCCESS, TERMINAL_SIGNALS, Command, EnvFactory, Job, Reply

BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[5]); from mtrl.envs.worker_process import main; main()"
"""A worker finds modules where its parent does, tests and user code included."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

CLOSE_SECONDS = 5.0
"""How long an orderly end may take before the processes are killed."""


class WorkerError(RuntimeError):
    """A worker process failed, died or hung. All workers of that vector environment have been ended.

    The first line of the message says what happened to which environment; a traceback may follow.
    """


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which environments there are and what to call them in messages."""

    task_names: tuple[str, ...]
    envs_per_task: int

    def __len__(self) -> int:
        """Return the number of environments."""
        return len(self.task_names) * self.envs_per_task

    def describe(self, row: int) -> str:
        """Name task and environment of a row."""
        task, env = divmod(row, self.envs_per_task)
        return f"task {self.task_names[task]!r}, env {env}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Worker:
    index: int
    rows: tuple[int, ...]
    process: subprocess.Popen[bytes]
    connection: Connection


class WorkerPool:
    """Processes that hold all environments between them."""

    def __init__(
        self, rows: Rows, sizes: Sizes, make_env: EnvFactory, *, timeout: float, startup_timeout: float
    ) -> None:
        """Start `sizes.workers` processes and build all environments in them.

        Args:
            rows: The environments, dealt out in turn, so that every worker gets cheap and dear tasks.
            sizes: The layout of the shared arrays.
            make_env: Called in the worker for each of its environments.
            timeout: Seconds any command may take.
            startup_timeout: Seconds until all environments must be built.
        """
        self._rows = rows
        self._timeout = timeout
        self._workers: list[_Worker] = []
        self._by_descriptor: dict[int, _Worker] = {}
        self._poller = select.poll()
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end, self._workers, self._owner)
        memory = allocate(sizes)
        try:
            self.arrays: SharedArrays = attach(memory, sizes)
            for index in range(sizes.workers):
                worker = _start(index, tuple(range(len(rows)))[index :: sizes.workers], memory)
                self._workers.append(worker)
                self._by_descriptor[worker.connection.fileno()] = worker
                self._poller.register(worker.connection, select.POLLIN)
        except BaseException:
            self._finalizer()
            raise
        finally:
            os.close(memory)
        jobs = [
            Job(worker=worker.index, rows=worker.rows, envs_per_task=rows.envs_per_task, make_env=make_env, sizes=sizes)
            for worker in self._workers
        ]
        self._exchange("start", [pickle.dumps(job) for job in jobs], startup_timeout)

    @property
    def is_closed(self) -> bool:
        """Whether the workers have ended, in order or not."""
        return not self._finalizer.alive

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(worker.process.pid for worker in self._workers)

    def ask(self, command: Command) -> list[Any]:
        """Send the command to all workers and return their results.

        Raises:
            WorkerError: A worker failed, died, or did not answer in time. The pool is closed then.
        """
        order = STEP if command is Command.STEP else pickle.dumps((command, None))
        return self._exchange(command.value, [order] * len(self._workers), self._timeout)

    def ask_rows(self, command: Command, payload: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """Send each worker the command with the items of `payload` that belong to its rows. Else like `ask`.

        Args:
            command: What to do.
            payload: One item for each row.
            timeout: Seconds it may take, if not as long as others.
        """
        parts = [{row: payload[row] for row in worker.rows} for worker in self._workers]
        messages = [pickle.dumps((command, part)) for part in parts]
        return self._exchange(command.value, messages, self._timeout if timeout is None else timeout)

    def close(self) -> None:
        """End all processes. Safe to call twice; does nothing in a fork of the process that started them."""
        if self.is_closed or os.getpid() != self._owner:
            return
        try:
            _close_orderly(self._workers)
        finally:
            self._finalizer()

    def _exchange(self, what: str, messages: Sequence[bytes], timeout: float) -> list[Any]:
        if self.is_closed:
            raise RuntimeError("the vector environment is closed")
        try:
            for worker, message in zip(self._workers, messages, strict=True):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; `_receive` says how
                    worker.connection.send_bytes(message)
            return self._collect(what, timeout)
        except BaseException:  # an interrupted exchange cannot be continued: answers would be taken for others
            self._finalizer()
            raise

    def _collect(self, what: str, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        pending = dict.fromkeys(self._workers)
        results: list[Any] = [None] * len(self._workers)
        while pending:
            ready = self._poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise WorkerError(self._describe_hang(list(pending), what, timeout))
            for descriptor, _ in ready:
                worker = self._by_descriptor[descriptor]
                results[worker.index] = self._receive(worker, what)  # raises if it answered before and then died
                pending.pop(worker)
        return results

    def _receive(self, worker: _Worker, what: str) -> Any:
        try:
            answer = worker.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise WorkerError(self._describe_death(worker)) from None
        if answer == SUCCESS:
            return None
        reply: Reply = pickle.loads(answer)
        if reply.failure is not None:
            where = self._rows.describe(reply.row) if reply.row != IDLE else "no environment"
            raise WorkerError(f"{where}: {what!r} failed in {_name(worker)}: {reply.failure}")
        return reply.result

    def _describe_hang(self, workers: list[_Worker], what: str, timeout: float) -> str:
        lines = [f"{self._where(worker)}: {_name(worker)} hangs" for worker in workers]
        return f"no answer to {what!r} within {timeout:g} s. " + "; ".join(lines)

    def _describe_death(self, worker: _Worker) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=1.0)
        code = worker.process.returncode
        how = "closed its connection" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return f"{self._where(worker)}: {_name(worker)} {how}"

    def _where(self, worker: _Worker) -> str:
        row = int(self.arrays.progress[worker.index])
        if row != IDLE:
            return self._rows.describe(row)
        return "while idle, holding " + "; ".join(self._rows.describe(row) for row in worker.rows)


def _name(worker: _Worker) -> str:
    return f"worker {worker.index} (pid {worker.process.pid})"


def _start(index: int, rows: tuple[int, ...], memory: int) -> _Worker:
    ours, theirs = Pipe()
    # The death signal follows the starting thread, not the process: ask for it only where both end together.
    signal_on_death = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    numbers = (theirs.fileno(), memory, os.getpid(), int(signal_on_death))
    with theirs, _terminal_signals_blocked():
        process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, *map(str, numbers), json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory),
            env=os.environ | ONE_THREAD,
        )
    return _Worker(index=index, rows=rows, process=process, connection=ours)


@contextlib.contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Shield the processes started meanwhile until they can ignore these signals themselves: they inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close_orderly(workers: list[_Worker]) -> None:
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.connection.send((Command.CLOSE, None))
    deadline = time.monotonic() + CLOSE_SECONDS
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))


def _end(workers: list[_Worker], owner: int) -> None:
    """Kill what still runs and collect every process; does nothing in a fork of the owner."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
        worker.connection.close()
