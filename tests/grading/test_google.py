from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from proxyherd.grading import google
from proxyherd.grading.google import FakeGoogle, OpensslError, make_google


def test_only_files_that_are_there_are_covered_and_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link, missing = tmp_path / "bundle", tmp_path / "link", tmp_path / "missing"
    real.touch()
    link.symlink_to(real)
    monkeypatch.setattr(google, "TRUSTED", (str(link), str(missing)))
    made = FakeGoogle(tmp_path / "google")
    assert made.over([missing]) == {"/etc/hosts": made.hosts, str(real): made.authority}


def test_each_library_is_told_of_the_authority(tmp_path: Path) -> None:
    environ = FakeGoogle(tmp_path).environ
    assert set(environ) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    assert set(environ.values()) == {str(tmp_path / "authority.pem")}


def test_what_openssl_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], 1, b"", b"no randomness\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(OpensslError, match="no randomness"):
        make_google(tmp_path / "google")


def test_a_machine_without_openssl_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(OpensslError, match="apt install openssl"):
        make_google(tmp_path / "google")
