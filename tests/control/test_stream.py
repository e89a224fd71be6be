"""Framing of the control stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlan.control.stream import LENGTH_SIZE, MAX_BODY, MIN_BODY, FrameDecoder, encode_frame
from softlan.errors import LocalProtocolError, RemoteProtocolError


def feed(decoder, data):
    decoder.feed(data)
    bodies = []
    while (body := decoder.next_body()) is not None:
        bodies.append(body)
    return bodies


def pieces(data, cuts):
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def test_the_length_is_big_endian_and_does_not_count_itself():
    assert encode_frame(b"{}") == b"\x00\x00\x00\x02{}"


@pytest.mark.parametrize("size", [MIN_BODY - 1, MAX_BODY + 1])
def test_no_body_out_of_bounds_is_sent(size):
    with pytest.raises(LocalProtocolError, match=str(size)):
        encode_frame(b"x" * size)


@pytest.mark.parametrize("size", [MIN_BODY, MAX_BODY])
def test_the_bounds_themselves_pass(size):
    assert feed(FrameDecoder(), encode_frame(b"x" * size)) == [b"x" * size]


@pytest.mark.parametrize("length", [0, 1, MAX_BODY + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_the_body(length):
    decoder = FrameDecoder()
    decoder.feed(length.to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError, match=str(length)):
        decoder.next_body()


def test_frames_before_a_bad_length_are_not_lost_and_nothing_comes_after():
    decoder = FrameDecoder()
    decoder.feed(encode_frame(b"{1}") + b"\0\0\0\0" + encode_frame(b"{2}"))
    assert decoder.next_body() == b"{1}"
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decoder.next_body()
        decoder.feed(encode_frame(b"{3}"))


def test_a_broken_decoder_keeps_nothing():
    decoder = FrameDecoder()
    decoder.feed(b"\0\0\0\0")
    with pytest.raises(RemoteProtocolError):
        decoder.next_body()
    decoder.feed(b"x" * 10**6)
    assert len(decoder._buffer) == 0
    decoder.end()


def test_an_end_between_messages_is_fine_and_inside_one_is_not():
    decoder = FrameDecoder()
    decoder.end()
    feed(decoder, encode_frame(b"{}"))
    decoder.end()
    for part in (b"\0", b"\0\0\0\x02", b"\0\0\0\x02{"):
        decoder = FrameDecoder()
        feed(decoder, part)
        with pytest.raises(RemoteProtocolError, match="inside"):
            decoder.end()


@given(st.lists(st.binary(min_size=2, max_size=50), max_size=8), st.lists(st.integers(0, 400)))
def test_bodies_arrive_whatever_the_pieces(bodies, cuts):
    data = b"".join(map(encode_frame, bodies))
    decoder = FrameDecoder()
    assert [body for piece in pieces(data, cuts) for body in feed(decoder, piece)] == bodies
    decoder.end()


@given(st.lists(st.binary(min_size=MIN_BODY, max_size=200), max_size=8))
def test_who_reads_what_is_missing_reads_twice_a_message_and_no_further(bodies):
    data = b"".join(map(encode_frame, bodies))
    decoder, came, reads = FrameDecoder(), [], 0
    while data:
        missing = decoder.missing
        came += feed(decoder, data[:missing])
        data, reads = data[missing:], reads + 1
    assert came == bodies
    assert reads == 2 * len(bodies)
    assert decoder.missing == LENGTH_SIZE


def outcome(parts):
    """What comes out, and whether the stream was refused."""
    decoder, bodies = FrameDecoder(), []
    for part in parts:
        decoder.feed(part)
        try:
            while (body := decoder.next_body()) is not None:
                bodies.append(body)
        except RemoteProtocolError:
            return bodies, True
        assert len(decoder._buffer) < LENGTH_SIZE + MAX_BODY
    return bodies, False


@given(st.binary(max_size=200) | st.lists(st.sampled_from([0, 1, 2, 3, 65]), max_size=60).map(bytes))
def test_any_bytes_give_the_same_whole_and_byte_by_byte(data):
    assert outcome([data]) == outcome([data[i : i + 1] for i in range(len(data))])
