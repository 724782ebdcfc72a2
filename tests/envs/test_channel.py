"""Messages that arrive whole, late, in part or not at all."""

import struct
import threading

import pytest

from mtrl.envs import channel
from mtrl.envs.channel import Channel, open_pair

LARGE = bytes(range(256)) * 40_000  # 10 MB: far more than a connection holds by itself


@pytest.fixture
def pair():
    ours, theirs = open_pair()
    yield ours, Channel(theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("message", [b"", b"short", LARGE], ids=["empty", "short", "large"])
def test_messages_arrive_whole_and_in_order(pair, message):
    ours, theirs = pair
    sender = threading.Thread(target=lambda: [theirs.send(part) for part in (message, b"next")])
    sender.start()
    assert ours.receive(60.0) == message
    assert ours.receive(60.0) == b"next"
    sender.join()


def test_what_was_read_and_not_returned_is_known(pair):
    ours, theirs = pair
    assert not ours.holds_more
    theirs._end.sendall(channel.frame(b"order") + channel.frame(b"next"))
    assert (ours.receive(60.0), ours.holds_more) == (b"order", True)
    assert (ours.receive(60.0), ours.holds_more) == (b"next", False)


def test_a_reader_does_not_wait_for_ever_for_the_rest_of_a_message(monkeypatch):
    monkeypatch.setattr(channel, "_LAST_SECONDS", 0.0)
    ours, theirs = open_pair()
    theirs.sendall(struct.pack("!Q", 100) + b"the first of them")
    with pytest.raises(TimeoutError):
        ours.receive(0.1)
    theirs.close()
    ours.close()


def test_what_arrives_at_the_last_moment_is_read(pair):
    ours, theirs = pair
    theirs.send(b"answer")
    assert ours.receive(-1.0) == b"answer"  # the time was up when others had been read


def test_a_sender_does_not_wait_for_ever_for_a_reader_that_has_stopped(pair):
    with pytest.raises(TimeoutError):
        pair[0].send(LARGE, 0.1)


def test_a_closed_end_is_noticed_by_both(pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(ConnectionError):
        ours.receive(60.0)
    with pytest.raises(ConnectionError):
        ours.send(b"question", 60.0)
