"""Requests to stop: the first signal is remembered, the second ends the process."""

import os
import signal
from collections.abc import Iterator

import pytest

from mtrl import signals
from mtrl.signals import HANDLED, StopRequest


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_the_first_signal_is_remembered_and_becomes_the_exit_code(number, code):
    stop = StopRequest()
    stop.install()
    os.kill(os.getpid(), number)
    assert stop.received is number
    assert stop.reason == number.name
    assert stop.exit_code == code


def test_the_second_signal_has_its_default_effect():
    stop = StopRequest()
    stop.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in HANDLED] == [signal.SIG_DFL] * 3


def test_a_signal_is_taken_where_nobody_reads_the_message(monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    stop = StopRequest()
    stop.install()
    monkeypatch.setattr(os, "write", broken)
    signal.raise_signal(signal.SIGTERM)
    assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
