"""Target `journal`: what a disk may hold where a journal was, read and replayed.

An input is two bytes of header - bytes of a chunk, and of a line - and the files, with NEXT_FILE between them. A
line that begins with RECORD is given its right checksum, so that whole records are found among the damage.

The laws: nothing is raised; exactly the lines with a right checksum and not too long come back, however the file
falls into chunks; what stands behind the last of them is cut off, so that a second start finds the same and
nothing torn; appends go on; a replay ends as the oracle merges its AT lines.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import oracle
from quick_table import QuickTable

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.messages import parse_at
from proxyherd.core.node import Node
from proxyherd.engines.herd import journal
from proxyherd.engines.herd.journal import Finding, Journal

CHUNK_BYTES = (3, 8, 64, 262_144)
LINE_BYTES = (16, 60, 200, 8_448)
RECORD = b"~"
NEXT_FILE = b"\xff\xfe"
NAMES = ("000000000003.snapshot", "000000000004.segment", "000000000007.segment")
APPENDED = b"AT Ann +0.000000000 appended +1+1 1"

SEEDS = (
    b"\x03\x03~AT Ann +0.100000000 kiwi +1+1 5\n~AT Bona -0.100000000 kiwi +1+1 6.5\n",
    b"\x02\x03~AT Ann +0.100000000 kiwi +1+1 5\n0badc0de AT Ann\n\n~\n\xff\xfe~AT A +0.000000000 k +0+0 1\ntorn",
    b"\x01\x01~" + b"A" * 80 + b"\n~short\n\xff\xfe" + b"B" * 80 + b"\xff\xfe\n\n~x",
    b"\x00\x00~\n~~\n00000000 \n" + b"0" * 30,
    b"\x03\x02~poison\n~AT Ann +0.100000000 kiwi +91+1 5\n12345678 AT\n\xff\xfe\xff\xfe~last\n",
)

_table = QuickTable(b"k" * 32)
_folder = Path(
    tempfile.mkdtemp(prefix="proxyherd-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
)
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    chunk, most = CHUNK_BYTES[data[0] & 3], LINE_BYTES[data[1] & 3]
    contents = [_with_records(content) for content in data[2:].split(NEXT_FILE)[: len(NAMES)]]
    judge(contents, chunk=chunk, line_bytes=most)


def judge(contents: list[bytes], *, chunk: int, line_bytes: int) -> None:
    """Replay a journal of files with these contents, and hold it to the laws."""
    paths = [_folder / name for name in NAMES[: len(contents)]]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    try:
        with patch.object(journal, "_CHUNK_BYTES", chunk):
            _judge(paths, contents, line_bytes)
    finally:
        _table.clear()
        for path in _folder.iterdir():
            path.unlink()


def _judge(paths: list[Path], contents: list[bytes], line_bytes: int) -> None:
    wanted = [_whole(path, content, line_bytes) for path, content in zip(paths, contents, strict=True)]
    for _, finding in wanted:
        assert journal.verify(finding.path).torn <= finding.torn  # a longer line may be whole for it
    lines, findings = _replay(line_bytes, append=True)
    assert findings == [finding for _, finding in wanted]
    assert lines == [line for right, _ in wanted for line in right]
    for finding in findings:
        assert finding.path.stat().st_size == finding.end
    again, after = _replay(line_bytes, append=False)
    assert again == [*lines, *([APPENDED] if len(APPENDED) <= line_bytes else [])]
    assert not any(finding.torn for finding in after[: len(paths)])
    assert [f.records for f in after[: len(paths)]] == [f.records for f in findings]
    _check_table(lines)


def _replay(line_bytes: int, *, append: bool) -> tuple[list[bytes], list[Finding]]:
    lines: list[bytes] = []
    findings: list[Finding] = []
    one = Journal(_folder, line_bytes=line_bytes, rewrite_bytes=1 << 20)
    one.start()
    try:
        for found in one.replay():
            if isinstance(found, Finding):
                findings.append(found)
            else:
                lines += found
        assert one.failing == ""
        assert not append or one.append([APPENDED])
    finally:
        one.close()
    return lines, findings


def _whole(path: Path, content: bytes, line_bytes: int) -> tuple[list[bytes], Finding]:
    """What a reader with all the memory in the world finds."""
    right: list[bytes] = []
    at = end = wrong = damaged = 0
    for record in content.split(b"\n")[:-1]:
        at += len(record) + 1
        line = record[9:]
        if len(line) <= line_bytes and record == f"{zlib.crc32(line):08x} ".encode() + line:
            right.append(line)
            damaged, end = wrong, at
        else:
            wrong += 1
    return right, Finding(path, len(right), damaged, end, len(content) - end)


def _check_table(lines: list[bytes]) -> None:
    node = Node("Ann", _table, Limits(), Timing(), alone=True, now=0)
    node.replay(map(parse_at, lines))
    assert {client: entry.line for client, entry in _table} == oracle.greatest(lines, {})
    assert not node.news


def _with_records(content: bytes) -> bytes:
    return b"\n".join(_records(content.split(b"\n")))


def _records(lines: Iterable[bytes]) -> Iterable[bytes]:
    for line in lines:
        if line.startswith(RECORD):
            yield f"{zlib.crc32(line[1:]):08x} ".encode() + line[1:]
        else:
            yield line
