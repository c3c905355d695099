from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxyherd.grading import records
from proxyherd.grading.records import FolderError, Record, alone, claim, kept, write_result


@pytest.fixture
def output(tmp_path: Path) -> Path:
    made = tmp_path / "grades"
    made.mkdir()
    return made


def test_a_folder_is_for_the_results_of_one_class(output: Path) -> None:
    claim(output, Path("/classes/one"))
    claim(output, Path("/classes/one"))
    before = {path: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(FolderError, match="holds the results of another class, /classes/one; name another"):
        claim(output, Path("/classes/two"))
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_a_name_that_is_not_utf8_is_a_name(output: Path) -> None:
    claim(output, Path("/classes/\udcff"))
    claim(output, Path("/classes/\udcff"))


def test_a_folder_with_files_of_others_is_not_taken(output: Path) -> None:
    (output / ".DS_Store").touch()
    claim(output, Path("/classes/one"))
    (output / records.CLASS).unlink()
    (output / "thesis.tex").touch()
    with pytest.raises(FolderError, match=r"holds other files, such as thesis\.tex"):
        claim(output, Path("/classes/one"))
    assert not (output / records.CLASS).exists()


@pytest.mark.parametrize("text", ["", "{}", "[", '{"submissions": 7}'])
def test_a_file_that_is_not_ours_is_not_taken(output: Path, text: str) -> None:
    (output / records.CLASS).write_text(text)
    with pytest.raises(FolderError, match=r"class\.json: "):
        claim(output, Path("/classes/one"))


def test_one_grading_at_a_time_writes_there(output: Path) -> None:
    with alone(output), pytest.raises(FolderError, match="another grading writes there"), alone(output):
        pytest.fail("two at once")
    with alone(output):
        pass


def test_what_goes_wrong_meanwhile_is_not_taken_for_another_grading(output: Path) -> None:
    with pytest.raises(BlockingIOError), alone(output):
        raise BlockingIOError


def test_a_record_that_is_damaged_is_none(output: Path) -> None:
    file, record = output / records.RECORD, Record("anna", "k", "", 1, 2.5, {"points": 7}, 0)
    assert kept(file) is None
    write_result(file, msgspec.json.encode(record))
    assert kept(file) == record
    assert file.stat().st_mode & 0o007 == 0
    assert [path.name for path in output.iterdir()] == [records.RECORD]
    for damaged in (b"", b"{", b'{"name": 1}'):
        file.write_bytes(damaged)
        assert kept(file) is None


@pytest.mark.parametrize(
    ("record", "is_final", "reason"),
    [
        (Record("a", "k"), False, "not graded yet"),
        (Record("a", "", "its name is not UTF-8"), True, "its name is not UTF-8"),
        (Record("a", "k", "not started: x", 2), True, "not started: x"),
        (Record("a", "k", attempts=1), True, ""),
    ],
)
def test_a_record_is_final_once_there_is_a_reason_or_an_attempt(
    record: Record, is_final: bool, reason: str
) -> None:
    assert (record.is_final, record.reason) == (is_final, reason)
