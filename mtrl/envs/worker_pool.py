"""Start worker processes, ask them all, replace those that fail, and end them: in order, or when the parent ends."""

import contextlib
import logging
import os
import pickle
import select
import subprocess
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mtrl.envs.child import Child, start
from mtrl.envs.shared_arrays import IDLE, SharedArrays, Sizes, allocate, attach
from mtrl.envs.worker_process import STEP, SUCCESS, Command, EnvFactory, Job, Reply
from mtrl.interfaces import BrokenEnvError

CLOSE_SECONDS = 5.0
"""How long an orderly end may take before the processes are killed."""

MAX_RESTARTS = 3
"""A machine short of memory kills a worker now and then, and that must not end a run of days; but what comes again at
once is a fault of the environment or of the machine, and somebody has to look at it."""

RESTART_SECONDS = 600.0
"""The time within which there may be so many. Long enough to notice a worker that fails once in an episode."""

STOPPED_SECONDS = 1.0
"""So much this process must have overslept to have been stopped itself, as by Ctrl-Z, which stops the workers too."""

MAX_SHOWN = 3
"""Environments that a message names where any of them may be to blame."""

_LOGGER = logging.getLogger(__name__)


class WorkerError(BrokenEnvError):
    """A worker process failed, died or hung: at the start, or once too often. All workers have been ended.

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


class _Failure(NamedTuple):
    headline: str
    """What happened to which environment."""
    traceback: str = ""


class _Begun(NamedTuple):
    """A question on its way."""

    command: Command
    messages: Mapping[int, bytes]
    """By worker."""
    timeout: float
    asked: list[int]
    """Workers that will answer."""
    failures: dict[int, _Failure]
    """Of those that will not, by worker."""


class WorkerPool:
    """Processes that hold all environments between them.

    One that fails is replaced: its environments are built anew and begin new episodes with the goals in `arrays.goal`,
    their rows are marked in `arrays.broken`, and it is asked again what it did not answer.
    """

    def __init__(
        self,
        rows: Rows,
        sizes: Sizes,
        make_env: EnvFactory,
        *,
        timeout: float,
        startup_timeout: float,
        max_restarts: int = MAX_RESTARTS,
    ) -> None:
        """Start `sizes.workers` processes and build all environments in them.

        Args:
            rows: The environments, dealt out in turn, so that every worker gets cheap and dear tasks.
            sizes: The layout of the shared arrays.
            make_env: Called in the worker for each of its environments.
            timeout: Seconds any command may take.
            startup_timeout: Seconds within which a start must get to another environment, or end.
            max_restarts: Workers that may be replaced within `RESTART_SECONDS`.
        """
        self.num_restarts = 0
        """Workers replaced so far."""
        self._rows = rows
        self._timeout, self._startup_timeout, self._max_restarts = timeout, startup_timeout, max_restarts
        self._failed_at: deque[float] = deque()
        self._failure: WorkerError | None = None
        self._begun: _Begun | None = None
        self._workers: list[Child] = []
        self._owner = os.getpid()
        self._memory = allocate(sizes)
        self._finalizer = weakref.finalize(self, _end, self._workers, self._memory, self._owner)
        dealt = [tuple(range(len(rows)))[index :: sizes.workers] for index in range(sizes.workers)]
        try:
            self.arrays: SharedArrays = attach(self._memory, sizes)
            self._jobs = [
                pickle.dumps(
                    Job(worker=index, rows=own, envs_per_task=rows.envs_per_task, make_env=make_env, sizes=sizes)
                )
                for index, own in enumerate(dealt)
            ]
            self._start(dealt)
        except BaseException:
            self._finalizer()
            raise

    @property
    def is_closed(self) -> bool:
        """Whether the workers have ended, in order or not."""
        return not self._finalizer.alive

    @property
    def has_failed(self) -> bool:
        """Whether they have ended because they failed too often."""
        return self._failure is not None

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The workers' process ids; that of a worker changes when it is replaced."""
        return tuple(worker.process.pid for worker in self._workers)

    def ask(self, command: Command) -> list[Any]:
        """Send the command to all workers and return their results.

        Raises:
            WorkerError: Workers failed, died, or did not answer in time, once too often. The pool is closed then.
        """
        self.begin(command)
        return self.finish()

    def require_free(self, command: Command) -> None:
        """Raise where the command cannot begin: `WorkerError` after a failure for good, else `RuntimeError`."""
        if self._failure is not None:
            raise self._failure
        if self.is_closed:
            raise RuntimeError("the vector environment is closed")
        if self._begun is not None:
            raise RuntimeError(f"{command.value!r} cannot begin before {self._begun.command.value!r} is finished")

    def begin(self, command: Command) -> None:
        """Send the command to all workers; `finish` returns their results. Nothing else can be asked in between."""
        order = STEP if command is Command.STEP else pickle.dumps((command, None))
        self._begin(command, dict.fromkeys(range(len(self._workers)), order), self._timeout)

    def ask_rows(self, command: Command, payload: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """Send each worker the command with the items of `payload` that belong to its rows. Else like `ask`.

        Args:
            command: What to do.
            payload: One item for each row.
            timeout: Seconds it may take, if not as long as others.
        """
        parts = [{row: payload[row] for row in worker.rows} for worker in self._workers]
        messages = {index: pickle.dumps((command, part)) for index, part in enumerate(parts)}
        self._begin(command, messages, self._timeout if timeout is None else timeout)
        return self.finish()

    def finish(self) -> list[Any]:
        """Wait for what was begun, no longer than the command may take from now on, and return the results.

        Raises:
            WorkerError: See `ask`.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            raise RuntimeError("nothing was begun")
        what, timeout = begun.command.value, begun.timeout
        with self._closing_on_failure():
            results, failures = self._collect(what, begun.asked, timeout)
            failures = begun.failures | failures
            while failures:
                self._replace(failures)
                unanswered = {index: begun.messages[index] for index in failures}
                answers, failures = self._exchange(what, unanswered, timeout)
                results |= answers
        return [results[index] for index in range(len(self._workers))]

    def close(self) -> None:
        """End all processes. Safe to call twice; does nothing in a fork of the process that started them."""
        if self.is_closed or os.getpid() != self._owner:
            return
        try:
            _close_orderly(self._workers)
        finally:
            self._finalizer()

    # ------------------------------------------------------------------------------------------------- questions

    def _start(self, dealt: Sequence[tuple[int, ...]]) -> None:
        self.arrays.progress[:] = IDLE
        for index, rows in enumerate(dealt):
            self._workers.append(start(index, rows, self._memory))
        _, failures = self._exchange("start", dict(enumerate(self._jobs)), self._startup_timeout)
        for failure in failures.values():
            raise WorkerError(_message(*failure))

    def _begin(self, command: Command, messages: Mapping[int, bytes], timeout: float) -> None:
        self.require_free(command)
        with self._closing_on_failure():
            self._begun = _Begun(command, messages, timeout, *self._send(command.value, messages, timeout))

    @contextlib.contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """End all workers where an exchange breaks off: it cannot be continued, answers would be taken for others."""
        try:
            yield
        except BaseException as error:
            self._failure = error if isinstance(error, WorkerError) else None
            self._finalizer()
            raise

    def _exchange(
        self, what: str, messages: Mapping[int, bytes], timeout: float
    ) -> tuple[dict[int, Any], dict[int, _Failure]]:
        """Send messages to workers and wait for all answers; return results and failures by worker."""
        asked, failures = self._send(what, messages, timeout)
        results, others = self._collect(what, asked, timeout)
        return results, failures | others

    def _send(self, what: str, messages: Mapping[int, bytes], timeout: float) -> tuple[list[int], dict[int, _Failure]]:
        """Send messages to workers; return those that will answer, and those that hang."""
        failures: dict[int, _Failure] = {}
        asked = []
        for index, message in messages.items():
            try:
                self._workers[index].channel.send(message, timeout)
            except TimeoutError:
                failures[index] = self._describe_hang(index, what, timeout)
                continue
            except ConnectionError:
                pass  # it died; receiving says how
            asked.append(index)
        return asked, failures

    def _collect(self, what: str, asked: Sequence[int], timeout: float) -> tuple[dict[int, Any], dict[int, _Failure]]:
        results: dict[int, Any] = {}
        failures: dict[int, _Failure] = {}
        poller = select.poll()
        pending = {self._workers[index].channel.fileno(): index for index in asked}
        for descriptor in pending:
            poller.register(descriptor, select.POLLIN)
        deadline, seen = time.monotonic() + timeout, self.arrays.progress.copy()
        while pending:
            began = time.monotonic()
            wait = max(0.0, deadline - began)
            ready = poller.poll(wait * 1000)
            was_stopped = time.monotonic() - began - wait > STOPPED_SECONDS
            is_building = what == "start" and (self.arrays.progress != seen).any()
            if not ready and (was_stopped or is_building):
                deadline, seen = time.monotonic() + timeout, self.arrays.progress.copy()
                continue
            if not ready:
                return results, failures | {i: self._describe_hang(i, what, timeout) for i in pending.values()}
            for descriptor, _ in ready:
                index = pending.pop(descriptor)
                poller.unregister(descriptor)
                answer = self._receive(index, what, timeout, deadline)
                if isinstance(answer, _Failure):
                    failures[index] = answer
                else:
                    results[index] = answer
        return results, failures

    def _receive(self, index: int, what: str, timeout: float, deadline: float) -> Any:
        worker = self._workers[index]
        try:
            answer = worker.channel.receive(deadline - time.monotonic())
        except TimeoutError:
            return self._describe_hang(index, what, timeout)
        except ConnectionError:
            return _Failure(f"{self._where(worker)}: {worker} {worker.how_it_ended()}")
        if answer == SUCCESS:
            return None
        reply: Reply = pickle.loads(answer)
        if reply.failure is None:
            return reply.result
        where = self._rows.describe(reply.row) if reply.row != IDLE else "no environment"
        headline, _, traceback = reply.failure.partition("\n\n")
        return _Failure(f"{where}: {what!r} failed in {worker}: {headline}", traceback)

    # -------------------------------------------------------------------------------------------------- failures

    def _replace(self, failures: Mapping[int, _Failure]) -> None:
        """End workers that failed and start others, until they hold their environments and have begun episodes.

        Raises:
            WorkerError: There have been too many failures, or the system starts no more processes.
        """
        while failures:
            began = time.monotonic()
            self._count(failures)
            for index, failure in failures.items():
                self._workers[index].end()
                self.arrays.progress[index] = IDLE
                try:
                    self._workers[index] = start(index, self._workers[index].rows, self._memory)
                except OSError as problem:
                    addition = f", and no other could be started: {problem}"
                    raise WorkerError(_message(failure.headline + addition, failure.traceback)) from problem
            jobs = {index: self._jobs[index] for index in failures}
            built, not_built = self._exchange("start", jobs, self._startup_timeout)
            reset = dict.fromkeys(built, pickle.dumps((Command.RESET, None)))
            begun, not_begun = self._exchange(Command.RESET.value, reset, self._timeout)
            for index in begun:
                self._report(self._workers[index], failures[index], time.monotonic() - began)
            failures = not_built | not_begun

    def _count(self, failures: Mapping[int, _Failure]) -> None:
        now = time.monotonic()
        while self._failed_at and now - self._failed_at[0] > RESTART_SECONDS:
            self._failed_at.popleft()
        for failure in failures.values():
            self._failed_at.append(now)
            if len(self._failed_at) > self._max_restarts:
                addition = f", failure {len(self._failed_at)} within {RESTART_SECONDS / 60:g} minutes"
                raise WorkerError(_message(failure.headline + addition, failure.traceback))

    def _report(self, worker: Child, failure: _Failure, seconds: float) -> None:
        self.num_restarts += 1
        self.arrays.broken[list(worker.rows)] = True
        _LOGGER.warning(
            "%s; restarted as pid %d in %.1f s with new episodes, failure %d of the %d that are survived in %g minutes",
            *(failure.headline, worker.process.pid, seconds),
            *(len(self._failed_at), self._max_restarts, RESTART_SECONDS / 60),
        )
        _LOGGER.debug(failure.traceback)

    def _describe_hang(self, index: int, what: str, timeout: float) -> _Failure:
        worker = self._workers[index]
        how = f"hangs, no answer to {what!r} within {timeout:g} s"
        if worker.process.poll() is not None:  # and something that it started holds its end of the connection open
            how = worker.how_it_ended()
        return _Failure(f"{self._where(worker)}: {worker} {how}")

    def _where(self, worker: Child) -> str:
        row = int(self.arrays.progress[worker.index])
        if row != IDLE:
            return self._rows.describe(row)
        shown = [self._rows.describe(row) for row in worker.rows[:MAX_SHOWN]]
        more = f"; and {len(worker.rows) - MAX_SHOWN} more" if len(worker.rows) > MAX_SHOWN else ""
        return f"while idle, holding {'; '.join(shown)}{more}"


def _message(headline: str, traceback: str) -> str:
    return f"{headline}\n\n{traceback}" if traceback else headline


def _close_orderly(workers: list[Child]) -> None:
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.channel.send(pickle.dumps((Command.CLOSE, None)), CLOSE_SECONDS)
    deadline = time.monotonic() + CLOSE_SECONDS
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))


def _end(workers: list[Child], memory: int, owner: int) -> None:
    """Kill what still runs and collect every process; does nothing in a fork of the owner."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.end()
    os.close(memory)
