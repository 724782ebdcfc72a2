"""Requests to stop: the first signal is remembered, a second one, later, ends the process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mtrl import signals
from mtrl.signals import HANDLED, StopRequest

CODES = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_a_signal_nothing_was_requested():
    stop = StopRequest()
    assert stop.received is None
    assert stop.reason is None
    assert stop.exit_code == 0


def test_the_time_allowed_ends_the_run_as_if_it_were_done(monkeypatch):
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    stop = StopRequest(max_hours=0.5)
    now = 100.0 + 1799
    assert stop.reason is None
    now = 100.0 + 1800
    assert stop.reason == "--max-hours 0.5"
    assert stop.exit_code == 0


@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_first_signal_is_remembered_and_becomes_the_exit_code(number, code):
    stop = StopRequest()
    stop.install()
    os.kill(os.getpid(), number)
    assert stop.received is number
    assert stop.reason == number.name
    assert stop.exit_code == code


def test_a_second_signal_has_its_default_effect_and_a_repeated_first_one_has_none(monkeypatch):
    # `timeout` signals its child and then its own group, to which the child belongs.
    now, raised = 100.0, []
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    monkeypatch.setattr(signals.signal, "raise_signal", lambda n: raised.append((n, signal.getsignal(n))))
    StopRequest().install()
    for now in (100.0, 100.1, 100.9):  # noqa: B007 - read by the clock
        os.kill(os.getpid(), signal.SIGTERM)
        assert raised == []
    now = 101.1
    os.kill(os.getpid(), signal.SIGINT)
    assert raised == [(signal.SIGINT, signal.SIG_DFL)]


def test_a_second_signal_ends_the_process():
    program = """if True:
        import os, signal, time
        from mtrl import signals
        signals.REPEAT_SECONDS = 0.0
        signals.StopRequest().install()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)"""
    found = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert found.returncode == -signal.SIGTERM


def test_a_hang_up_that_was_switched_off_stays_so():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    StopRequest().install()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_is_taken_where_nobody_reads_the_message(monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    stop = StopRequest()
    stop.install()
    monkeypatch.setattr(os, "write", broken)
    signal.raise_signal(signal.SIGTERM)
    assert stop.received == signal.SIGTERM
