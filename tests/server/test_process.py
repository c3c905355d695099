"""How processes begin and end: tasks in the background, imports in threads, and a log that cannot be opened."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from proxyherd.config.errors import ConfigError
from proxyherd.server.process import Background, SlowImports, open_log


def test_a_task_that_fails_is_told_once_and_one_that_ends_or_is_cancelled_never() -> None:
    failures: list[BaseException] = []
    background, error = Background(failures.append), ValueError()

    async def fail() -> None:
        raise error

    async def play() -> None:
        background.spawn(fail())
        background.spawn(asyncio.sleep(0))
        waits = background.spawn(asyncio.sleep(3600))
        for _ in range(3):
            await asyncio.sleep(0)
        assert failures == [error]
        await background.end()
        assert waits.cancelled()

    asyncio.run(play())
    assert failures == [error]


def test_who_ends_the_background_waits_for_what_tasks_do_at_last() -> None:
    done: list[str] = []
    background = Background(lambda _: None)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            done.append("the file is closed")

    async def play() -> None:
        background.spawn(work())
        await asyncio.sleep(0)
        await background.end()

    asyncio.run(play())
    assert done == ["the file is closed"]


def test_a_log_gets_its_folder_and_one_that_cannot_be_opened_names_file_and_remedy(tmp_path: Path) -> None:
    open_log(tmp_path / "new" / "log", max_bytes=0).close()
    with pytest.raises(ConfigError) as told:
        open_log(tmp_path / "new" / "log" / "log", max_bytes=0)
    assert str(told.value).startswith(f"{tmp_path}/new/log/log: ")
    assert "--log-file" in str(told.value)


def test_of_imports_in_threads_each_ends_before_the_next_one_begins() -> None:
    steps: list[str] = []
    other_may_begin = threading.Event()

    def first() -> None:
        steps.append("first begins")
        other_may_begin.wait(0.05)  # which never happens
        steps.append("first ends")

    def second() -> None:
        steps.append("second")
        other_may_begin.set()

    async def play() -> None:
        imports = SlowImports()
        await asyncio.gather(imports.run(first), imports.run(second))

    asyncio.run(play())
    assert steps == ["first begins", "first ends", "second"]
