"""The rules of the fields, each bound from both sides, and the whole parser against an oracle of another make."""

from __future__ import annotations

import gc
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proxyherd.core.messages import (
    ANY_LENGTH,
    MOST_NANOSECONDS,
    At,
    Entry,
    Report,
    Whatsat,
    command_forms,
    invalid,
    latest_receipt,
    metres,
    nanoseconds,
    parse_at,
    parse_question,
    parse_report,
    position,
    received,
    recent_parser,
    word,
)

ROOT = Path(__file__).parents[2] / "proxyherd"
PLACE = b"+34.068930-118.445127"
TIME = b"1621464827.959498503"
SECOND = 10**9
SPACES = b" \t\r\n\f\v"
NOT_SPACES = [b"\x00", b"\x1c", b"\x1d", b"\x1e", b"\x1f", b"\x85", b"\xa0", b"\xc2\xa0", b"\xe2\x80\x83"]


def iamat(client: bytes = b"kiwi", place: bytes = PLACE, time: bytes = TIME) -> bytes:
    return b"IAMAT " + client + b" " + place + b" " + time


def whatsat(radius: bytes = b"10", most: bytes = b"5", client: bytes = b"kiwi") -> bytes:
    return b"WHATSAT " + client + b" " + radius + b" " + most


def at(
    name: bytes = b"Clark",
    difference: bytes = b"+0.263873386",
    client: bytes = b"kiwi",
    place: bytes = PLACE,
    time: bytes = TIME,
) -> bytes:
    return b" ".join((b"AT", name, difference, client, place, time))


# An oracle that reads as docs/client-protocol.md does: split, count digits, compare as decimal numbers. -------


def are_digits(text: bytes, least: int, most: int) -> bool:
    return least <= len(text) <= most and all(48 <= byte <= 57 for byte in text)


def is_decimal(text: bytes, whole_most: int, fraction_most: int) -> bool:
    whole, point, fraction = text.partition(b".")
    return are_digits(whole, 1, whole_most) and (not point or are_digits(fraction, 1, fraction_most))


def is_degrees(text: bytes, whole_most: int, bound: int) -> bool:
    return is_decimal(text[1:], whole_most, 10**6) and -bound <= Decimal(text.decode()) <= bound


def is_location(text: bytes) -> bool:
    signs = [index for index, byte in enumerate(text) if byte in b"+-"]
    if len(signs) != 2 or signs[0] != 0:
        return False
    return is_degrees(text[: signs[1]], 2, 90) and is_degrees(text[signs[1] :], 3, 180)


def is_time(text: bytes) -> bool:
    return is_decimal(text, 12, 9)


def as_nanoseconds(text: bytes) -> int:
    return int(Decimal(text.decode()).scaleb(9))


def time_that_counts(time: int, received: int, lead: int = SECOND) -> int:
    return max(0, min(time, received + lead))


def parse_command(line: bytes) -> Report | Whatsat | None:
    """Parse a client's line, received at the beginning of POSIX time."""
    return parse_report(line, b"Clark", 0) or parse_question(line)


def formatted(server: bytes, received: int, client: bytes, place: bytes, time: bytes) -> bytes:
    """Return the AT line of a report."""
    difference = received - as_nanoseconds(time)
    sign = b"-" if difference < 0 else b"+"
    spelled = b"%b%d.%09d" % (sign, *divmod(abs(difference), SECOND))
    return b" ".join((b"AT", server, spelled, client, place, time))


def expected_command(line: bytes) -> Report | Whatsat | None:
    match line.split():
        case [_, client, *_] if len(client) > 512:
            return None
        case [b"IAMAT", client, place, time] if is_location(place) and is_time(time):
            line = formatted(b"Clark", 0, client, place, time)
            return Report(client, line, time_that_counts(as_nanoseconds(time), 0))
        case [b"WHATSAT", client, radius, most]:
            if not (len(radius) <= 20 and is_decimal(radius, 20, 20) and are_digits(most, 1, 20)):
                return None
            if Decimal(radius.decode()) > 50 or int(most) > 20:
                return None
            return Whatsat(client, radius, int(most))
    return None


def is_name(text: bytes) -> bool:
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    others = letters + b"0123456789_-"
    return 1 <= len(text) <= 63 and text[0] in letters and all(byte in others for byte in text)


def is_difference(text: bytes) -> bool:
    whole, _, fraction = text[1:].partition(b".")
    if text[:1] not in (b"+", b"-") or not are_digits(whole, 1, 12) or not are_digits(fraction, 9, 9):
        return False
    return text != b"-0.000000000" and (whole == b"0" or not whole.startswith(b"0"))


def expected_at(line: bytes, lead: int = SECOND) -> At | None:
    match line.split(b" "):
        case [b"AT", name, difference, client, place, time]:
            formed = is_name(name) and is_difference(difference) and client.split() == [client]
            if formed and is_location(place) and is_time(time):
                received = as_nanoseconds(time) + int(Decimal(difference.decode()).scaleb(9))
                return At(
                    client, Entry(line, time_that_counts(as_nanoseconds(time), received, lead)), received
                )
    return None


# IAMAT. -------------------------------------------------------------------------------------------------------


def test_a_report_keeps_its_operands_as_they_came_and_its_time_in_nanoseconds() -> None:
    line = b"IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    assert parse_report(line, b"Clark", 1_621_464_827_959_498_504) == Report(
        b"kiwi.cs.ucla.edu",
        b"AT Clark +0.000000001 kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503",
        1_621_464_827_959_498_503,
    )


@pytest.mark.parametrize(
    "place",
    [
        *("+5.5-6", "+0+0", "-0-0", "+00+000", "+9-9", "+89.999999999999999999999+179.999999999999999999999"),
        *("+90+180", "-90-180", "+90.0-180.000", "+09.5+099", "+1+18", "+1+179", "+1+99.5", "+1+100"),
        "+0." + "1" * 3_000 + "-0." + "9" * 3_000,
    ],
)
def test_a_location_in_form_and_bounds_is_taken(place: str) -> None:
    parsed = parse_command(iamat(place=place.encode()))
    assert isinstance(parsed, Report)
    assert parsed.line.split(b" ")[4] == place.encode()


@pytest.mark.parametrize(
    "place",
    [
        *("+90.00000000000000001+0", "-90.00000000000000001+0", "+0+180.00000000000000001", "+0-180.1"),
        *("+91+0", "+99+0", "+0+181", "+0+190", "+0+200", "+0+999", "+000+0", "+100+0", "+0+0000", "+0+1000"),
        *("34.068930-118.445127", "+34.068930", "+34.068930118.445127", "+34.+1", "+34+1.", "+.5+1", "+1+.5"),
        *(
            "++1+1",
            "+1++1",
            "+-1+1",
            "+1+1+1",
            "+1+1/",
            "+1+1Z",
            "+1,5+1",
            "+1e1+1",
            "+1_0+1",
            "+1+1\x00",
            "",
        ),
        *("+34+1+10.5", "+nan+1", "+inf+1", "+1 +1", "+\u0661+1", "+90.0000000000000000010+0", "+1..5+1"),
    ],
)
def test_a_location_out_of_form_or_bounds_is_no_command(place: str) -> None:
    assert parse_command(iamat(place=place.encode())) is None


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (b"0", 0),
        (b"000000000000", 0),
        (b"0.0", 0),
        (b"5.5", 5_500_000_000),
        (b"5.500000000", 5_500_000_000),
        (b"0.000000001", 1),
        (b"999999999999", 999_999_999_999 * SECOND),
        (b"999999999999.999999999", 10**21 - 1),
        (b"1621464827.959498503", 1_621_464_827_959_498_503),
    ],
)
def test_a_time_is_exact_to_the_nanosecond(time: bytes, expected: int) -> None:
    parsed = parse_report(iamat(time=time), b"Clark", expected)
    assert parsed is not None
    assert (parsed.line.split(b" ")[5], parsed.nanoseconds) == (time, expected)


@pytest.mark.parametrize(
    "time",
    [
        *(
            b"",
            b"1000000000000",
            b"0000000000000",
            b"1.0000000000",
            b"1.",
            b".5",
            b"+1",
            b"-1",
            b"1e3",
            b"1_0",
        ),
        *(b"nan", b"inf", b"1.2.3", b"0x1", b"1,5", b"1.+5", b"1.5Z", b"1\x00", "\u0661".encode()),
    ],
)
def test_a_time_out_of_form_is_no_command(time: bytes) -> None:
    assert parse_command(iamat(time=time)) is None


@pytest.mark.parametrize(
    "client",
    [
        b"k",
        b"\x00",
        b"\xff\xfe",
        "kïwi\U0001f95d".encode(),
        b"IAMAT",
        b"+1+1",
        b"?",
        b"a" * 512,
        *NOT_SPACES,
    ],
)
def test_a_client_id_is_any_run_of_bytes_that_are_no_white_space(client: bytes) -> None:
    parsed = parse_command(iamat(client=client))
    assert isinstance(parsed, Report)
    assert parsed.client == client


@pytest.mark.parametrize("most", [64, 512, 5_000])
def test_an_id_has_at_most_so_many_bytes_in_both_commands_however_they_are_spelled(most: int) -> None:
    forms = command_forms(most)
    for length, fits in ((most, True), (most + 1, False)):
        client = b"\xff" * length
        for line in (iamat(client), b" IAMAT\t%b  %b\v5\r" % (client, PLACE)):
            assert (parse_report(line, b"Clark", 0, forms) is not None) == fits
            assert parse_report(line, b"Clark", 0, ANY_LENGTH) is not None
        for line in (whatsat(client=client), whatsat(client=client).replace(b" ", b" \f ")):
            assert (parse_question(line, forms) is not None) == fits
            assert parse_question(line, ANY_LENGTH) is not None


def test_what_a_neighbour_says_may_have_a_longer_id() -> None:
    assert parse_at(at(client=b"k" * 8_000)) is not None


# WHATSAT. -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "radius", [b"0", b"00", b"0.0", b"10", b"50", b"50.0", b"050", b"49.99999999999999999", b"0" * 18 + b"50"]
)
def test_a_radius_up_to_50_kilometres_is_taken_as_it_came(radius: bytes) -> None:
    assert parse_command(whatsat(radius)) == Whatsat(b"kiwi", radius, 5)


@pytest.mark.parametrize(
    "radius",
    [
        *(
            b"50.1",
            b"50.00000000000000001",
            b"51",
            b"100",
            b"0" * 19 + b"50",
            b"1." + b"0" * 19,
            b"9" * 5_000,
        ),
        *(b"+1", b"-1", b"-0", b"1.", b".5", b"1e1", b"1_0", b"nan", b"inf", b"1.5.", b"0x1", b"1,5"),
    ],
)
def test_a_radius_out_of_form_or_bounds_is_no_command(radius: bytes) -> None:
    assert parse_command(whatsat(radius)) is None


@pytest.mark.parametrize(("most", "expected"), [(b"0", 0), (b"20", 20), (b"007", 7), (b"0" * 18 + b"20", 20)])
def test_up_to_20_results_may_be_wanted(most: bytes, expected: int) -> None:
    assert parse_command(whatsat(most=most)) == Whatsat(b"kiwi", b"10", expected)


@pytest.mark.parametrize(
    "most",
    [b"21", b"20.0", b"+5", b"-1", b"5.", b"1e1", b"1_0", b"0" * 19 + b"20", b"9" * 5_000, "\u0661".encode()],
)
def test_a_bound_out_of_form_or_bounds_is_no_command(most: bytes) -> None:
    assert parse_command(whatsat(most=most)) is None


def test_metres_of_a_radius_are_exact() -> None:
    assert metres(b"49.99999999999999999") == Decimal("49999.99999999999999")
    assert metres(b"0.0") == 0


# Words, white space, order. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [iamat(), whatsat()])
@pytest.mark.parametrize("space", [bytes([byte]) for byte in SPACES])
def test_each_white_space_byte_separates_and_surrounds(line: bytes, space: bytes) -> None:
    spaced = space * 2 + line.replace(b" ", space * 3) + space
    assert parse_command(spaced) == parse_command(line) is not None


@pytest.mark.parametrize("line", [iamat(), whatsat()])
@pytest.mark.parametrize("other", NOT_SPACES)
def test_no_other_byte_is_white_space(line: bytes, other: bytes) -> None:
    assert parse_command(line.replace(b" ", other)) is None
    assert parse_command(other + b" " + line) is None
    assert parse_command(line + b" " + other) is None


def test_white_space_is_exactly_what_splitting_bytes_splits_at() -> None:
    for byte in range(256):
        one = bytes([byte])
        assert (parse_command(one + iamat() + one) is not None) == (one in SPACES) == (not one.split())


def test_no_pattern_has_a_possessive_group_which_older_pythons_match_wrongly() -> None:
    for file in ROOT.rglob("*.py"):
        assert not re.search(r"\)(?:[?*+]|\{[\d,]*\})\+", file.read_text()), (
            f"{file.name}: python/cpython issue 106052"
        )


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" ", b"\r", b"FOO", b"iamat kiwi +1+1 1", b"Iamat kiwi +1+1 1", b"whatsat kiwi 1 1"),
        *(
            b"IAMAT",
            b"IAMAT kiwi",
            b"IAMAT kiwi +1+1",
            b"IAMAT kiwi +1+1 1 1",
            b"IAMAT +1+1 1",
            b"IAMATkiwi +1+1 1",
        ),
        *(b"IAMAT +1+1 kiwi 1", b"IAMAT kiwi 1 +1+1", b"kiwi IAMAT +1+1 1", b"IAMAT kiwi +1 +1 1"),
        *(b"WHATSAT", b"WHATSAT kiwi", b"WHATSAT kiwi 1", b"WHATSAT kiwi 1 1 1", b"WHATSAT 1 1"),
        *(b"WHATSAT 10 kiwi 5", b"WHATSATkiwi 1 1", b"? IAMAT kiwi +1+1 1", at()),
    ],
)
def test_an_unknown_word_and_a_wrong_number_or_order_of_operands_are_no_command(line: bytes) -> None:
    assert parse_command(line) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *((b"\x0b" * 100 + b"IAMAT\x0cx", "iamat"), (b"WHATSAT", "whatsat"), (b"AT\tx", "at"), (b"AT", "at")),
        *((b"at", "other"), (b"", "other"), (b" ", "other"), (b"IAMATx", "other"), (b"IAMA", "other")),
        *((b"x AT", "other"), (b"\xc2\xa0AT", "other"), (b"AT\x00", "other")),
    ],
)
def test_a_failed_command_is_counted_under_its_word(line: bytes, expected: str) -> None:
    assert word(line) == expected


def test_a_report_as_nearly_all_are_spelled_takes_a_short_cut_to_the_same_end() -> None:
    forms = command_forms(512)
    lines = [b"IAMAT kiwi +34.068930-118.445127 1479413884.392014450", b"IAMAT \xff +1+1 5.000000000"]
    assert all(map(forms.usual_iamat, lines))
    detour = replace(forms, usual_iamat=lambda _: None)
    short, long = ([parse_report(line, b"Clark", 5, one) for line in lines] for one in (forms, detour))
    assert short == long != [None, None]


def test_a_value_never_changes_and_no_garbage_collection_visits_it() -> None:
    entry = Entry(b"AT x", 5)
    with pytest.raises(AttributeError):
        entry.line = b"AT y"  # type: ignore[misc]
    assert not gc.is_tracked(entry)
    assert {entry: "found"}[Entry(b"AT x", 5)] == "found"


def test_an_invalid_line_is_copied_byte_for_byte() -> None:
    assert invalid(b"  FOO\xff \r") == b"?   FOO\xff \r"
    assert invalid(b"") == b"? "


# AT lines. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "time", "difference"),
    [
        (5 * SECOND, b"5.000000000", b"+0.000000000"),
        (5 * SECOND, b"5", b"+0.000000000"),
        (5 * SECOND + 1, b"5", b"+0.000000001"),
        (5 * SECOND - 1, b"5", b"-0.000000001"),
        (7 * SECOND, b"5.5", b"+1.500000000"),
        (4 * SECOND, b"5.5", b"-1.500000000"),
        (1_621_464_828_223_371_889, TIME, b"+0.263873386"),
        (1_621_464_827_959_498_504, TIME, b"+0.000000001"),
        (0, b"999999999999.999999999", b"-999999999999.999999999"),
        (10**21 - 1, b"0", b"+999999999999.999999999"),
    ],
)
def test_a_difference_has_a_sign_and_nine_decimals_and_is_exact(
    received: int, time: bytes, difference: bytes
) -> None:
    report = parse_report(iamat(time=time), b"Clark", received)
    assert report is not None
    assert report.line == at(difference=difference, time=time)
    assert parse_at(report.line) == At(b"kiwi", Entry(report.line, report.nanoseconds), received)


@pytest.mark.parametrize(
    ("time", "lead", "counts"),
    [
        (b"5", 0, 5 * SECOND),
        (b"5.000000001", 0, 5 * SECOND),
        (b"6", SECOND, 6 * SECOND),
        (b"6.000000001", SECOND, 6 * SECOND),
        (b"4", SECOND, 4 * SECOND),
        (b"999999999999.999999999", SECOND, 6 * SECOND),
        (b"65", 60 * SECOND, 65 * SECOND),
        (b"65.000000001", 60 * SECOND, 65 * SECOND),
    ],
)
def test_a_time_counts_up_to_the_lead_behind_its_receipt_and_stays_in_the_line_as_it_was(
    time: bytes, lead: int, counts: int
) -> None:
    report = parse_report(iamat(time=time), b"Clark", 5 * SECOND, lead=lead)
    assert report is not None
    assert report.nanoseconds == counts
    assert report.line.endswith(b" " + time)
    assert parse_at(report.line, lead) == At(b"kiwi", Entry(report.line, counts), 5 * SECOND)
    assert recent_parser(lead)(report.line) == parse_at(report.line, lead)


def test_the_answer_is_the_example_of_the_protocol() -> None:
    report = parse_report(iamat(client=b"kiwi.cs.ucla.edu"), b"Clark", 1_621_464_828_223_371_889)
    assert report is not None
    assert report.line == (
        b"AT Clark +0.263873386 kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    )


@pytest.mark.parametrize(
    "line",
    [
        *(at(name=b"X"), at(name=b"Gone-Away_9"), at(name=b"x" * 63), at(difference=b"-0.000000001")),
        *(at(difference=b"+0.000000000"), at(difference=b"-999999999999.999999999"), at(client=b"\xff\x00")),
    ],
)
def test_an_at_line_of_any_well_formed_server_is_taken(line: bytes) -> None:
    assert parse_at(line) == expected_at(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b"AT",
            b"AT ",
            at()[3:],
            b"at" + at()[2:],
            b" " + at(),
            at() + b" ",
            at() + b"\r",
            at() + b" x",
        ),
        *(at().replace(b" ", b"  "), at().replace(b" ", b"\t"), at(client=b""), at(client=b"a\tb")),
        *(
            at(name=b""),
            at(name=b"9a"),
            at(name=b"-a"),
            at(name=b"x" * 64),
            at(name=b"a.b"),
            at(name=b"\xe9"),
        ),
        *(at(difference=b"0.263873386"), at(difference=b"+.263873386"), at(difference=b"+0.26387338")),
        *(at(difference=b"+0.2638733860"), at(difference=b"+00.263873386"), at(difference=b"-0.000000000")),
        *(at(difference=b"+1000000000000.000000000"), at(difference=b"+0"), at(difference=b"+01.000000000")),
        *(at(place=b"+91+0"), at(place=b""), at(time=b"-1"), at(time=b"1.0000000000"), at(time=b"")),
    ],
)
def test_an_at_line_that_no_server_writes_is_malformed(line: bytes) -> None:
    assert parse_at(line) is None


def test_no_time_is_as_late_as_the_bound_and_no_server_receives_as_late_as_twice_it() -> None:
    latest = b"999999999999.999999999"
    parsed = parse_at(at(difference=b"+" + latest, time=latest))
    assert parsed is not None
    assert parsed.entry.nanoseconds == MOST_NANOSECONDS - 1
    assert parsed.received == received(parsed.entry.line) == 2 * (MOST_NANOSECONDS - 1)
    assert latest_receipt(10**19, 0) == 2 * MOST_NANOSECONDS


@pytest.mark.parametrize("fraction", [b"", b".5", b".50000000", b".500000000", b".000000001"])
def test_when_a_report_was_received_is_its_time_and_the_difference(fraction: bytes) -> None:
    for difference, late in ((b"+2.000000003", 2_000_000_003), (b"-0.000000004", -4)):
        line = at(difference=difference, time=b"7" + fraction)
        assert received(line) == as_nanoseconds(b"7" + fraction) + late
        assert parse_at(line) == expected_at(line) is not None


def test_a_clock_that_shows_a_time_before_2020_judges_no_receipt() -> None:
    set_at = 1_577_836_800 * SECOND
    assert latest_receipt(set_at, 7) == set_at + 7
    assert latest_receipt(set_at - 1, 7) == latest_receipt(set_at, 0) == 2 * MOST_NANOSECONDS


def test_the_position_in_an_at_line_is_spelled_as_the_client_did() -> None:
    assert position(at(place=b"+5.50-006")) == ("+5.50", "-006")
    assert position(at(place=b"-90.0+180")) == ("-90.0", "+180")


# The parser against the oracle. -------------------------------------------------------------------------------

digits = st.text("0123456789", min_size=1, max_size=14)
zeros = st.integers(0, 20).map(lambda count: "0" * count)
bounds = st.sampled_from(["0", "5", "9", "20", "21", "50", "51", "89", "90", "91", "179", "180", "181"])
wholes = bounds | digits | st.builds(str.__add__, zeros, bounds)
fractions = digits | st.builds(str.__add__, zeros, st.sampled_from(["", "1", "000000001"]))
numbers = wholes | st.builds("{}.{}".format, wholes, fractions)
signs = st.sampled_from(["+", "-", "+", "-", "+", "-", "", "++", "\u2212"])
locations = st.builds("{}{}{}{}".format, signs, numbers, signs, numbers)
garbage = st.text("+-.0123456789eE_xnaif\x00\x1c\u00a0\u0661", max_size=12)
operands = (locations | numbers | garbage).map(str.encode)
clients = st.binary(min_size=1, max_size=12) | st.just(b"kiwi")
spaces = st.lists(st.sampled_from(list(SPACES)), min_size=1, max_size=3).map(bytes)
edges = st.just(b"") | spaces | st.binary(max_size=2)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    word = draw(st.sampled_from([b"IAMAT", b"WHATSAT", b"IAMAT", b"WHATSAT", b"AT", b"iamat", b""]))
    if word == b"IAMAT":
        parts = [word, draw(clients), draw(locations).encode(), draw(numbers).encode()]
    elif word == b"WHATSAT":
        parts = [word, draw(clients), draw(numbers).encode(), draw(wholes).encode()]
    else:
        parts = [word, draw(clients), draw(operands), draw(operands)]
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(parts) - 1))
        parts[at : at + draw(st.integers(0, 1))] = [draw(operands)]
    between = draw(spaces)
    return draw(edges) + between.join(parts) + draw(edges)


@settings(deadline=None)
@given(lines() | st.binary(max_size=40))
@example(b"IAMAT a +90.0-180.0 999999999999.999999999")
@example(b"IAMAT a +90.00000000000000000000000000001-1 1")
@example(b"IAMAT a +1+18 1")
def test_a_command_is_what_the_oracle_says(line: bytes) -> None:
    assert parse_command(line) == expected_command(line)


@st.composite
def at_lines(draw: st.DrawFn) -> bytes:
    client, place, time = draw(clients), draw(locations).encode(), draw(numbers).encode()
    server, received = draw(st.sampled_from([b"Clark", b"x" * 63, b"9"])), draw(st.integers(0, 2**64))
    line = formatted(server, received, client, place, time)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.binary(max_size=1)) + line[at + draw(st.integers(0, 1)) :]
    return line


leads = st.sampled_from([0, 1, SECOND, 60 * SECOND, 86_400 * SECOND]) | st.integers(0, 10**21)


@settings(deadline=None)
@given(at_lines() | st.binary(max_size=40), leads)
@example(at(difference=b"-1.000000000"), SECOND)
@example(at(difference=b"-1.000000001"), SECOND)
@example(at(difference=b"-999999999999.000000000", time=b"5"), SECOND)
def test_an_at_line_is_what_the_oracle_says(line: bytes, lead: int) -> None:
    assert parse_at(line, lead) == expected_at(line, lead)


@settings(deadline=None)
@given(line=lines(), received=st.integers(0, 10**19), lead=leads)
def test_what_a_server_formats_its_peers_parse(line: bytes, received: int, lead: int) -> None:
    report = parse_report(line, b"Clark", received, lead=lead)
    if report is not None:
        learned = parse_at(report.line, lead)
        assert learned == At(report.client, Entry(report.line, report.nanoseconds), received)
        assert report.line.split(b" ")[3:] == line.split()[1:]
        difference = Decimal(report.line.split(b" ")[2].decode())
        assert difference.scaleb(9) == received - report.nanoseconds


@settings(deadline=None)
@given(st.integers(0, 10**21 - 1), st.integers(0, 10**21 - 1))
def test_times_compare_as_numbers_however_they_are_spelled(one: int, other: int) -> None:
    def spelled(time: int) -> tuple[bytes, bytes | None]:
        fraction = f"{time % SECOND:09}".rstrip("0").encode()
        return str(time // SECOND).encode(), fraction or None

    assert nanoseconds(*spelled(one)) == one
    assert (nanoseconds(*spelled(one)) < nanoseconds(*spelled(other))) == (one < other)
