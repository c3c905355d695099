"""What is told of a supervisord that is stopping."""

from __future__ import annotations

import xmlrpc.client
from types import SimpleNamespace
from typing import NoReturn

import pytest

from proxyherd.local import herd, supervision
from proxyherd.local.witnesses import Traces


@pytest.fixture(autouse=True)
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let supervisord answer every call as it does from `shutdown` on."""

    def refuse() -> NoReturn:
        raise xmlrpc.client.Fault(6, "SHUTDOWN_STATE")

    methods = SimpleNamespace(shutdown=refuse, getAllProcessInfo=refuse)
    monkeypatch.setattr(xmlrpc.client, "ServerProxy", lambda *_, **__: SimpleNamespace(supervisor=methods))


def test_a_second_down_waits_for_the_end_as_the_first_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = iter([Traces(answers=True, supervisord=7, holders={}), Traces(False, 0, {})])
    monkeypatch.setattr(herd, "look", lambda: next(found))
    herd.down()
    assert capsys.readouterr().out == "The herd has stopped.\n"


def test_who_would_start_it_meanwhile_is_told_to_wait(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        supervision.states()
    assert ended.value.code == 1
    assert (
        ": the herd is being stopped; type proxyherd up again when it has stopped\n"
        in capsys.readouterr().err
    )
