"""What is opened by name is a regular file: a pipe or a device there is an error that names it, and nothing waits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from proxyherd.base.files import (
    NOT_REGULAR,
    inode_and_size,
    is_there,
    make_file,
    make_folder,
    open_regular,
    read_regular,
    sync_folder,
    write_all,
)
from proxyherd.config import herd_file, schema
from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError
from proxyherd.engines.herd import journal
from proxyherd.engines.herd.journal import Journal
from proxyherd.engines.redis import opening
from proxyherd.net import tls
from proxyherd.places import find_key
from proxyherd.places.failures import UnrecordedError
from proxyherd.places.gazetteer import own_places
from proxyherd.places.gazetteer.build import build, is_current
from proxyherd.places.gazetteer.file import File
from proxyherd.places.limits.budget import Budget
from proxyherd.server.supervision import StateDirectory

Make = Callable[[Path], object]


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("the pipe"))
    path.symlink_to("the pipe")


ODD: dict[str, Make] = {
    "pipe": os.mkfifo,
    "link to a pipe": link_to_a_pipe,
    "device": lambda path: path.symlink_to("/dev/null"),
}

HERD = """
edges = []
[servers]
Bob = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }
[tls]
clients_certificate = "certificate.pem"
clients_key = "key.pem"
"""


def load_certificate(path: Path) -> object:
    file_of_herd = path.with_name("herd.toml")
    file_of_herd.write_text(HERD.replace("certificate.pem", path.name))
    return tls.load(herd_file.load(file_of_herd), "Bob")


def spend(path: Path) -> object:
    with closing(Budget(path, 10, 10)) as budget:
        return budget.spend()


READERS: dict[str, tuple[type[Exception], str, Callable[[Path], object]]] = {
    "herd's file": (ConfigError, "--config", herd_file.load),
    "secret": (ConfigError, "proxyherd secret new", secret.read),
    "certificate": (ConfigError, "[tls]", load_certificate),
    "key for Google": (
        ConfigError,
        "write the key into it",
        lambda path: find_key(schema.PlacesSettings(key_file=path.name), path.with_name("herd.toml"), {}),
    ),
    "own places": (ConfigError, "places.own_places", own_places.read),
    "password of Redis": (
        ConfigError,
        "write the password into it",
        lambda path: opening._read(path, "key redis.password_file"),
    ),
    "authority of Redis": (ConfigError, "[redis]", lambda path: tls.load_for_redis(path, None)),
    "state lock": (OSError, "", lambda path: StateDirectory(path.parent)),
    "segment": (OSError, "", journal.verify),
    "gazetteer": (OSError, "", File),
    "gazetteer to build": (OSError, "", build),
    "lock of the gazetteer": (OSError, "", lambda path: build(path.with_name("g.sqlite"))),
    "budget": (UnrecordedError, "", spend),
}
NAMES = {"state lock": "lock", "lock of the gazetteer": "g.sqlite.lock"}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("what", READERS)
def test_a_pipe_or_a_device_where_a_file_is_due_is_an_error_that_names_it_and_stays(
    tmp_path: Path, what: str, odd: str
) -> None:
    path = tmp_path / NAMES.get(what, "file")
    ODD[odd](path)
    before = path.lstat(), path.stat()
    kind, remedy, use = READERS[what]
    with pytest.raises(kind) as caught:
        use(path)
    if kind is UnrecordedError:
        told = str(vars(caught.value))
        assert NOT_REGULAR in told
    else:
        told = str(caught.value)
        assert "device" in told
        assert str(path) in told
        assert remedy in told
    assert (path.lstat().st_ino, path.stat().st_rdev) == (before[0].st_ino, before[1].st_rdev)
    assert stat.S_IFMT(path.stat().st_mode) == stat.S_IFMT(before[1].st_mode)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_gazetteer_is_not_current(tmp_path: Path, odd: str) -> None:
    ODD[odd](tmp_path / "g.sqlite")
    assert not is_current(tmp_path / "g.sqlite")


@pytest.mark.parametrize("name", ["000000000001.segment", "000000000001.snapshot"])
def test_a_pipe_among_the_files_of_a_journal_is_damage_and_stops_no_start(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    started = Journal(tmp_path, line_bytes=8_448, rewrite_bytes=1 << 20)
    started.start()
    (finding,) = started.replay()
    assert isinstance(finding, journal.Finding)
    assert finding.damaged
    assert NOT_REGULAR in started.failing
    assert name in started.failing
    rewrite = started.begin_rewrite()
    assert rewrite is not None
    os.mkfifo(rewrite.path.with_suffix(".unfinished"))
    with pytest.raises(OSError, match=NOT_REGULAR):
        rewrite.write([])
    started.close()


def test_a_herds_file_that_may_not_be_looked_at_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        with pytest.raises(ConfigError, match=r"herd\.toml: Permission denied; name"):
            herd_file.load(tmp_path / "herd.toml")


def test_a_name_that_may_not_be_looked_up_is_not_taken_for_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    free = ("none", "file/none", "loop", 300 * "n", "a\0b")
    assert [name for name in ("file", ".", *free) if is_there(tmp_path / name)] == ["file", "."]

    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PermissionError):
        is_there(tmp_path / "none")


def test_a_name_that_no_file_can_have_is_an_error_of_whoever_has_given_it(tmp_path: Path) -> None:
    (tmp_path / "herd.toml").write_text(HERD.replace("certificate.pem", r"a\u0000b"))
    with pytest.raises(ConfigError, match=r"the name has a NUL, and no file's can; it is named in \[tls\]"):
        tls.load(herd_file.load(tmp_path / "herd.toml"), "Bob")


def test_a_regular_file_is_opened_as_ever_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"12345"
    assert read_regular(tmp_path / "link", 2) == b"12"
    os.close(open_regular(tmp_path / "new", os.O_RDWR | os.O_CREAT))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path, os.O_RDONLY)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none", os.O_RDONLY)


def test_a_link_at_the_gazetteers_name_is_kept_and_what_it_leads_to_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.places.gazetteer.build._cities", lambda: iter(()))
    (tmp_path / "disk").mkdir()
    link = tmp_path / "g.sqlite"
    link.symlink_to("disk/g.sqlite")
    assert build(link)
    assert link.is_symlink()
    assert is_current(tmp_path / "disk/g.sqlite")
    assert not build(link)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, 0o640), (0o666, 0o640), (0o777, 0o640), (0o600, 0o600), (0o400, 0o400), (0o644, 0o640)],
)
def test_a_file_that_is_made_is_closed_to_others_and_what_is_there_is_narrowed_and_never_widened(
    tmp_path: Path, before: int | None, after: int
) -> None:
    path, umask = tmp_path / "file", os.umask(0)
    try:
        if before is not None:
            path.write_bytes(b"content")
            path.chmod(before)
        make_file(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == after
    assert path.read_bytes() == (b"" if before is None else b"content")


def test_a_folder_is_made_with_those_above_it_and_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        (tmp_path / "a").mkdir(0o777)
        for _ in range(2):
            make_folder(tmp_path / "a/b/c")
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/c")]
    assert modes == [0o777, 0o750, 0o750]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="exists"):
        make_folder(tmp_path / "file")


def test_everything_is_written_however_little_the_system_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    write_all(fd, b"0123456789")
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    assert inode_and_size(tmp_path / "file") == ((tmp_path / "file").stat().st_ino, 10)
    assert inode_and_size(tmp_path / "none") == (0, 0)


def test_it_is_the_folder_that_is_synced_and_its_descriptor_is_closed_also_if_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        if len(synced) > 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    before = len([*Path("/proc/self/fd").iterdir()])
    sync_folder(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)
    with pytest.raises(NotADirectoryError):
        sync_folder(Path(__file__))
    assert synced == [str(tmp_path)] * 2
    assert len([*Path("/proc/self/fd").iterdir()]) == before
