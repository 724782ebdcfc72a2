"""How worker processes fail for good and end: an error that names the environment, and nothing left behind."""

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mtrl.envs.channel import frame
from mtrl.envs.worker_pool import WorkerError
from mtrl.envs.worker_process import STEP, Command
from mtrl.envs.workers import WorkerVectorEnv
from mtrl.signals import HANDLED
from tests.envs.fakes import (
    counting,
    exiting,
    hanging,
    never_built,
    raising,
    raising_at_construction,
    served,
    slowly_built,
    slowly_restored,
)
from tests.envs.harness import make_spec, vector_env, wait_until_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STAY = np.zeros((3, 2, 1), np.float32)

PARENT = """
from mtrl.envs.shared_arrays import Sizes
from mtrl.envs.worker_pool import Rows, WorkerPool
from mtrl.envs.worker_process import Command
from tests.envs.fakes import hanging
rows = Rows(task_names=("north", "east", "south"), envs_per_task=2)
sizes = Sizes(rows=6, obs_dim=4, action_dim=1, workers=2)
pool = WorkerPool(rows, sizes, hanging, timeout=60, startup_timeout=60, max_restarts=10**6)
pool.ask(Command.RESET)
print(*pool.process_ids, flush=True)
{then}
"""


REPLACING = """
import itertools, os, signal
for turn in itertools.count():
    os.kill(pool.process_ids[turn % 2], signal.SIGKILL)
    pool.ask(Command.RESET)
"""


STOPPED = """
import os, signal
from tests.envs.harness import vector_env
from tests.envs.fakes import slow
from tests.envs.test_worker_pool import STAY
with vector_env(slow, workers=2, timeout=3.0) as env:
    env.reset()
    print("stepping", flush=True)
    print(env.step(STAY).valid.all(), env.worker_restarts, flush=True)
"""


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def num_mapped():
    return Path("/proc/self/maps").read_text().count("memfd:mtrl-envs")


def assert_fails(make_env, match, **options):
    with vector_env(make_env, workers=2, max_restarts=0, **options) as env:
        env.reset()
        env.step(STAY)
        with pytest.raises(WorkerError, match=match) as error:
            env.step(STAY)
        assert wait_until_gone(env.process_ids)
        with pytest.raises(WorkerError, match=match):
            env.step(STAY)
    return str(error.value)


def test_an_exception_arrives_with_task_env_and_traceback():
    message = assert_fails(raising, "task 'east', env 0")
    assert "in _divide_by_zero" in message
    assert "ZeroDivisionError" in message


def test_an_exception_at_construction_arrives_with_task_and_env():
    with (
        pytest.raises(WorkerError, match=r"(?s)task 'east', env 1.*ZeroDivisionError"),
        vector_env(raising_at_construction),
    ):
        pass


def test_an_exiting_worker_is_reported_with_task_env_and_code():
    assert_fails(exiting, "task 'east', env 0.*exit code 7")


def test_a_hanging_worker_is_reported_with_task_and_env():
    assert_fails(hanging, "task 'east', env 0: worker 0 .* hangs, no answer to 'step' within 0.5 s", timeout=0.5)


@pytest.mark.slow
def test_a_start_may_take_longer_as_long_as_it_gets_on():
    with vector_env(slowly_built, startup_timeout=5.0) as env:  # for six environments of 2 s
        assert env.worker_restarts == 0


@pytest.mark.slow
def test_a_start_that_does_not_get_on_hangs():
    with (
        pytest.raises(WorkerError, match=r"task 'east', env 0: .* hangs, no answer to 'start' within 5 s"),
        vector_env(never_built, startup_timeout=5.0),
    ):
        pass


def test_restoring_may_take_as_long_as_starting():
    with vector_env(slowly_restored, workers=2, max_restarts=0) as env:
        env.reset()
        env._startup_timeout = 0.5
        with pytest.raises(
            WorkerError, match=r"task 'north', env \d: worker \d .* hangs, no answer to 'set_state' within"
        ):
            env.set_state(env.get_state())


def test_a_killed_worker_is_reported_with_its_tasks():
    with vector_env(workers=2, max_restarts=0) as env:
        env.reset()
        os.kill(env.process_ids[1], signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"'north', env 1; task 'east', env 1; .*worker 1.*killed by SIGKILL"):
            env.step(STAY)
        assert time.monotonic() - start < 5
        assert wait_until_gone(env.process_ids)


def test_a_signal_without_a_name_is_reported_by_its_number():
    with vector_env(max_restarts=0) as env:
        env.reset()
        os.kill(env.process_ids[0], 40)
        with pytest.raises(WorkerError, match="was killed by signal 40"):
            env.step(STAY)


def test_of_many_environments_that_may_be_to_blame_three_are_named():
    with vector_env(spec=make_spec(envs_per_task=3), max_restarts=0) as env:
        env.reset()
        os.kill(env.process_ids[0], signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"'north', env 1; task 'north', env 2; and 6 more: worker 0"):
            env.step(STAY.repeat(2, axis=1)[:, :3])


def test_an_interrupted_step_ends_the_workers():
    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with vector_env(hanging, workers=2) as env:
            env.reset()
            env.step(STAY)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                env.step(STAY)
            assert wait_until_gone(env.process_ids)
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_workers_survive_the_signals_of_a_terminal_and_a_scheduler():
    with vector_env() as env:
        env.reset()
        for pid in env.process_ids:
            for number in HANDLED:
                os.kill(pid, number)
        assert env.step(STAY).valid.all()


class SignalledAtOnce(subprocess.Popen):
    """A process that gets the signals before its interpreter has started."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for number in HANDLED:
            self.send_signal(number)


def blocked_signals(status):
    (line,) = [line for line in Path(status).read_text().splitlines() if line.startswith("SigBlk")]
    return int(line.split()[1], 16)


def test_workers_survive_signals_in_their_first_moment(monkeypatch):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(subprocess, "Popen", SignalledAtOnce)
    with vector_env(workers=2) as env:
        env.reset()
        assert env.step(STAY).valid.all()
        assert [blocked_signals(f"/proc/{pid}/status") for pid in env.process_ids] == [0, 0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_close_ends_all_and_can_be_repeated():
    gc.collect()  # what earlier tests left must not be counted
    mapped, descriptors = num_mapped(), open_descriptors()
    with vector_env(workers=2) as env:
        env.reset()
        assert num_mapped() > mapped
        env.close()
        assert wait_until_gone(env.process_ids)
        env.close()
    del env
    gc.collect()
    assert (num_mapped(), open_descriptors()) == (mapped, descriptors)


def test_an_order_that_arrives_together_with_a_step_is_obeyed():
    with vector_env(served) as env:
        env.reset()
        (worker,) = env._pool._workers
        worker.channel._end.sendall(frame(STEP) + frame(pickle.dumps((Command.CLOSE, None))))
        assert worker.process.wait(timeout=20) == 0


def test_a_forgotten_env_takes_its_workers_along():
    env = WorkerVectorEnv(make_spec(), counting, seed=0, workers=2)
    pids = env.process_ids
    del env
    gc.collect()
    assert wait_until_gone(pids)


def test_an_env_outlives_the_thread_that_made_it():
    made = []
    thread = threading.Thread(target=lambda: made.append(WorkerVectorEnv(make_spec(), counting, seed=0, workers=2)))
    thread.start()
    thread.join()
    with made[0] as env:
        env.reset()
        assert env.step(STAY).valid.all()


def start_parent(then, **variables):
    command = [sys.executable, "-c", PARENT.format(then=then)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    pids = tuple(map(int, process.stdout.readline().split()))
    assert len(pids) == 2
    process.stdout.close()
    return process, pids


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("import time; time.sleep(3600)", id="idle workers"),
        pytest.param("for _ in range(2): pool.ask(Command.STEP)", id="a busy worker"),
    ],
)
def test_a_killed_parent_leaves_no_workers(then):
    process, pids = start_parent(then)
    process.kill()
    process.wait()
    assert wait_until_gone(pids)


def process_ids_with(mark):
    """Return the processes that have inherited the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return tuple(found)


@pytest.mark.parametrize("turn", [0, 1, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(2, 20))])
def test_a_parent_killed_while_it_replaces_workers_leaves_none(turn):
    mark = f"mtrl-test-{os.getpid()}-{turn}"
    process, _ = start_parent(REPLACING, MTRL_TEST_MARK=mark)
    assert process.pid in process_ids_with(mark)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=np.random.default_rng(turn).uniform(0, 1.0))  # a few replacements, or half of one
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while process_ids_with(mark):
        assert time.monotonic() < deadline


@pytest.mark.slow
def test_workers_stopped_together_with_their_parent_do_not_hang():
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stepping\n"
    os.killpg(process.pid, signal.SIGSTOP)  # as Ctrl-Z does
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=4.5)  # longer than a step may take
    os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=30)
    assert output == "True 0\n"


def test_a_parent_that_just_ends_leaves_no_workers():
    process, pids = start_parent("")
    assert process.wait() == 0
    assert wait_until_gone(pids)
