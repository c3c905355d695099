"""WebSocket frames: every cut of a stream gives the same messages, and every broken rule its close code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.web.frames import (
    Code,
    FrameReader,
    Message,
    Opcode,
    WebSocketError,
    close_frame,
    code_of,
    frame,
    message,
)
from proxyherd.web.ops import MESSAGE_BYTES

MASK = b"\x12\x34\x56\x78"


def sent(first: int, data: bytes, *, mask: bytes = MASK) -> bytes:
    """Return a client's frame, written as RFC 6455 says."""
    size = len(data)
    wide = b"" if size < 126 else size.to_bytes(2 if size < 1 << 16 else 8, "big")
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes([first, 0x80 | short]) + wide + mask + masked


def read_all(parts: list[bytes]) -> tuple[list[Message], WebSocketError | None]:
    """Return what a reader reads one by one, and what it reads all at once where it can: the same."""
    one_by_one, at_once = (read_parts(parts, usual=usual) for usual in (False, True))
    assert one_by_one[0] == at_once[0]
    codes = [error and (error.code, error.reason) for _, error in (one_by_one, at_once)]
    assert codes[0] == codes[1]
    return at_once


def read_parts(parts: list[bytes], *, usual: bool) -> tuple[list[Message], WebSocketError | None]:
    reader, messages, error = FrameReader(), list[Message](), None
    for part in parts:
        assert reader.receive(part) == reader.waiting
        more = True
        while more:
            if usual:
                opcode, payloads = reader.read_usual(2)
                assert len(payloads) <= 2
                messages += [Message(opcode, payload) for payload in payloads]
            found, more, error = reader.read(2)
            messages += found
        if error is not None:
            break
    return messages, error


FRAMES = st.one_of(
    st.tuples(st.just(Opcode.TEXT), st.text(max_size=200).map(str.encode)),
    st.tuples(st.just(Opcode.BINARY), st.binary(max_size=200) | st.just(bytes(70)) | st.just(bytes(300))),
    st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)),
)


@given(frames=st.lists(FRAMES, max_size=6), mask=st.binary(min_size=4, max_size=4), cut=st.integers(1, 50))
def test_however_a_stream_is_cut_its_messages_are_the_same(
    frames: list[tuple[Opcode, bytes]], mask: bytes, cut: int
) -> None:
    data = b"".join(sent(0x80 | opcode, payload, mask=mask) for opcode, payload in frames)
    for parts in ([data], [data[at : at + cut] for at in range(0, len(data), cut)]):
        assert read_all(parts) == (frames, None)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_messages_as_nearly_all_are_can_be_read_at_once(opcode: Opcode) -> None:
    payloads = [b"x" * size for size in range(126)]
    reader, other = FrameReader(), sent(0x89, b"ping")
    for payload in payloads:
        reader.receive(sent(0x80 | opcode, payload))
    reader.receive(other)
    assert reader.read_usual(100) == (opcode, payloads[:100])
    assert reader.read_usual(100) == (opcode, payloads[100:])
    assert reader.read_usual(100) == (0, [])
    assert reader.waiting == len(other)


def test_a_message_may_come_in_fragments_with_control_frames_between_them() -> None:
    data = sent(0x01, b"one ") + sent(0x89, b"ping") + sent(0x00, b"") + sent(0x80, "é".encode())
    expected = [(Opcode.PING, b"ping"), (Opcode.TEXT, "one é".encode())]
    assert read_all([data]) == (expected, None)
    assert read_all([data[at : at + 1] for at in range(len(data))]) == (expected, None)


def test_a_character_may_be_cut_by_fragments() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert read_all([sent(0x01, first) + sent(0x80, second)]) == ([(Opcode.TEXT, "é".encode())], None)


BROKEN = {
    "not masked": (b"\x81\x01a", Code.PROTOCOL_ERROR),
    "a reserved bit": (sent(0xC1, b"a"), Code.PROTOCOL_ERROR),
    "an unknown opcode": (sent(0x83, b"a"), Code.PROTOCOL_ERROR),
    "an unknown control frame": (sent(0x8B, b"a"), Code.PROTOCOL_ERROR),
    "a control frame that is cut": (sent(0x09, b"a"), Code.PROTOCOL_ERROR),
    "a large control frame": (sent(0x89, bytes(126)), Code.PROTOCOL_ERROR),
    "nothing to continue": (sent(0x80, b"a"), Code.PROTOCOL_ERROR),
    "another message within one": (sent(0x01, b"a") + sent(0x81, b"b"), Code.PROTOCOL_ERROR),
    "text that is not UTF-8": (sent(0x81, b"\xff"), Code.NOT_UTF8),
    "fragments that are not UTF-8": (sent(0x01, b"a") + sent(0x80, b"\xff"), Code.NOT_UTF8),
    "too large": (sent(0x82, bytes(MESSAGE_BYTES + 1))[:14], Code.TOO_LARGE),
    "fragments that are too large": (
        sent(0x02, bytes(MESSAGE_BYTES)) + sent(0x80, b"a")[:6],
        Code.TOO_LARGE,
    ),
    "a close frame of one byte": (sent(0x88, b"\x03"), Code.PROTOCOL_ERROR),
    "a close code that nobody sends": (sent(0x88, (1005).to_bytes(2, "big")), Code.PROTOCOL_ERROR),
    "a close reason that is not UTF-8": (sent(0x88, (1000).to_bytes(2, "big") + b"\xff"), Code.NOT_UTF8),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_has_its_code_and_what_came_before_is_read(name: str) -> None:
    data, code = BROKEN[name]
    for parts in ([sent(0x81, b"before") + data], [sent(0x81, b"before"), *map(bytes, zip(data))]):
        messages, error = read_all(parts)
        assert messages[0] == (Opcode.TEXT, b"before")
        assert error is not None
        assert error.code == code


def test_the_largest_message_is_read() -> None:
    assert read_all([sent(0x82, bytes(MESSAGE_BYTES))]) == ([(Opcode.BINARY, bytes(MESSAGE_BYTES))], None)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_server_s_frame_has_its_size_and_no_mask(size: int) -> None:
    written = frame(Opcode.BINARY, bytes(size))
    header = len(written) - size
    assert header == (2 if size < 126 else 4 if size < 65_536 else 10)
    assert written[0] == 0x82
    assert written[1] == (size if size < 126 else 126 if size < 65_536 else 127)
    assert header == 2 or int.from_bytes(written[2:header], "big") == size


def test_an_answer_is_of_the_kind_of_its_message_unless_it_is_not_utf8() -> None:
    assert message(Opcode.TEXT, "é".encode())[0] == 0x81
    assert message(Opcode.TEXT, b"\xff")[0] == 0x82
    assert message(Opcode.BINARY, b"a")[0] == 0x82


def test_codes_are_those_of_the_rfc_and_one_of_our_own() -> None:
    assert [int(code) for code in Code] == [
        *(1000, 1002, 1005, 1007, 1008, 1009, 1012, 1013),
        *(4401, 4408, 4429),
    ]


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4408, 4999])
def test_a_client_may_close_with_any_code_that_may_be_sent(code: int) -> None:
    for reason in (b"", b"x" * 123):
        payload = code.to_bytes(2, "big") + reason
        assert read_all([sent(0x88, payload)]) == ([(Opcode.CLOSE, payload)], None)


def test_a_close_frame_has_code_and_reason_or_nothing() -> None:
    assert close_frame(Code.RESTART, "later") == b"\x88\x07\x03\xf4later"
    assert close_frame(Code.NO_CODE) == b"\x88\x00"
    assert len(close_frame(Code.NORMAL, "x" * 200)) == 127
    assert code_of(b"\x03\xf4later") == Code.RESTART
    assert code_of(b"") == Code.NO_CODE


def test_a_reader_keeps_nothing_of_what_it_has_read() -> None:
    for payload in (b"x", b"x" * MESSAGE_BYTES):
        reader = FrameReader()
        reader.receive(sent(0x82, payload))
        _, found = reader.read_usual(1)
        for _ in range(2):
            found += [one.data for one in reader.read(1)[0]]
        assert found == [payload]
        assert reader._data == b""
