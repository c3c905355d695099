"""The herds that are broken, each in one way, and the checks that must see it: sections, and names of checks."""

from __future__ import annotations

from proxyherd.grading import cases, judging

SECTIONS = {section.name: section for section in judging.SECTIONS}
HTTP = "an-http-request-is-answered-and-then-the-server-closes"
BEHIND_HTTP = "nothing-behind-an-http-request-is-read"
BEFORE_HTTP = "answers-that-are-owed-before-an-http-request-come-first"
UNENDED_HTTP = "an-http-request-as-the-last-line-without-lf"
LIKE_HTTP = "what-only-resembles-an-http-request-is-one-invalid-line"

BROKEN: dict[str, tuple[str, set[str]]] = {
    # Cases: what is asked and answered.
    "splits-text": ("cases", {"nbsp-in-utf-8-is-not-white-space", "0x1c-is-not-white-space"}),
    "splits-at-spaces": (
        "cases",
        {
            *("several-spaces", "tab-form-feed-vertical-tab-between-fields", "white-space-at-both-ends"),
            *("crlf", "a-bare-cr-separates"),
        },
    ),
    "wants-text": ("cases", {"bytes-that-are-not-utf-8-in-a-client-id"}),
    "ends-at-nul": ("cases", {"nul-in-a-client-id"}),
    "strips-its-copy": (
        "cases",
        {"blank-line", "a-surplus-cr-is-copied", "odd-spacing-is-copied", HTTP, BEHIND_HTTP},
    ),
    "waits-for-lf": (
        "cases",
        {"no-lf-then-end-of-stream", "the-answer-to-a-line-without-lf-ends-in-lf", UNENDED_HTTP},
    ),
    "skips-empty-lines": ("cases", {"empty-line", "two-empty-lines"}),
    "takes-one-line-a-packet": (
        "cases",
        {"three-lines-in-one-packet", "two-empty-lines", BEFORE_HTTP, LIKE_HTTP},
    ),
    "hears-any-case": ("cases", {"lower-case"}),
    "fills-in-operands": ("cases", {"word-alone", "operand-missing", "operands-missing"}),
    "ignores-operands": ("cases", {"operand-too-many", "operands-too-many"}),
    "reserves-words": ("cases", {"a-client-called-iamat"}),
    "reads-the-beginning": (
        "cases",
        {
            *("three-coordinates", "solidus-at-the-end", "junk-after", "latitude-90-000001", "longitude-181"),
            "latitude-past-90-by-less-than-a-float-can-tell",
        },
    ),
    "reads-any-digits": (
        "cases",
        {
            *("no-sign-on-latitude", "one-coordinate", "no-digit-before-the-point", "longitude-181"),
            *("no-digit-after-the-point", "latitude-90-000001", "digits-of-another-script"),
            "latitude-past-90-by-less-than-a-float-can-tell",
        },
    ),
    "compares-degrees-as-floats": ("cases", {"latitude-past-90-by-less-than-a-float-can-tell"}),
    "knows-no-bounds": (
        "cases",
        {"latitude-90-000001", "longitude-181", "latitude-past-90-by-less-than-a-float-can-tell"},
    ),
    "leaves-out-the-poles": ("cases", {"the-poles-and-the-date-line"}),
    "wants-padding": ("cases", {"whole-degrees", "unpadded", "longitude-181", LIKE_HTTP}),
    "reads-times-as-python-does": (
        "cases",
        {"ten-decimals", "nan", "inf", "negative", "exponent", "underscores", "plus-sign"},
    ),
    "wants-nine-decimals": ("cases", {"whole-seconds", "one-decimal", "far-in-the-future", LIKE_HTTP}),
    "wants-the-time-to-be-near": ("cases", {"far-in-the-future"}),
    "reads-numbers-as-python-does": (
        "cases",
        {
            *("radius-50-0001", "radius-negative", "radius-signed", "radius-with-exponent", "radius-a-word"),
            *("bound-21", "bound-negative", "bound-fractional", "a-bound-of-5-000-digits"),
        },
    ),
    "wants-small-whole-numbers": (
        "cases",
        {"radius-and-bound-at-their-limits", "fractional-radius", "radius-0", "bound-0"},
    ),
    "knows-everybody": ("cases", {"unknown-client"}),
    "asks-for-nothing": (
        "cases places",
        {
            *("radius-and-bound-at-their-limits", "fractional-radius", "radius-0", "bound-0"),
            *("places.form", "places.nothing-asked", "places.in-order", BEFORE_HTTP),
        },
    ),
    "reads-on-after-http": ("cases", {HTTP, BEHIND_HTTP, BEFORE_HTTP}),
    "closes-at-what-resembles-http": ("cases", {LIKE_HTTP}),
    # Times.
    "float": ("times", {"times.difference-is-exact"}),
    "turns-the-difference-round": ("times", {"times.difference-is-received-less-sent"}),
    "keeps-the-first": (
        "times",
        {"times.later-report-counts", "times.a-nanosecond-counts", "times.compared-as-numbers"},
    ),
    "keeps-the-last": (
        "times",
        {
            *("times.earlier-report-does-not-count", "times.equal-time-does-not-count"),
            *("times.a-nanosecond-counts", "times.compared-as-numbers"),
        },
    ),
    "counts-equal-times": ("times", {"times.equal-time-does-not-count"}),
    "compares-times-as-floats": ("times", {"times.a-nanosecond-counts"}),
    "compares-times-as-text": (
        "times",
        {"times.equal-time-does-not-count", "times.compared-as-numbers"},
    ),
    # Floods.
    "no-flood": (
        "floods regained",
        {
            *("floods.reach-every-server", "floods.neighbours-know-at-once", "floods.newest-wins-everywhere"),
            *("floods.stale-reports-stay", "floods.equal-times-end-alike"),
            *("lost.others-flood", "regained.catches-up", "regained.floods"),
        },
    ),
    "floods-late": ("floods", {"floods.neighbours-know-at-once"}),
    "loops": ("floods", {"floods.end"}),
    "hears-of-new-clients-only": (
        "floods",
        {"floods.newest-wins-everywhere", "floods.equal-times-end-alike"},
    ),
    "floods-stale-reports": ("floods", {"floods.stale-reports-stay"}),
    "first": ("floods", {"floods.equal-times-end-alike"}),
    "at": ("floods", {"at.answered-as-invalid", "at.teaches-nobody", "at.replaces-nothing"}),
    "believes-at-in-silence": ("floods", {"at.teaches-nobody", "at.replaces-nothing"}),
    # Places.
    "leaves-out-the-status": (
        "cases places",
        {
            *("radius-and-bound-at-their-limits", "fractional-radius", "radius-0", "bound-0"),
            *("places.form", "places.nothing-asked", "places.in-order", BEFORE_HTTP),
        },
    ),
    "always-finds-something": ("places", {"places.nothing-asked"}),
    "overtakes-itself": ("places", {"places.form", "places.in-order"}),
    # Logs.
    "mute-at": ("logs", {"logs.iamat"}),
    "mute-json": ("logs", {"logs.whatsat"}),
    "mute-invalid": ("logs", {"logs.invalid"}),
    "mute-commands": ("logs", {"logs.iamat", "logs.whatsat", "logs.invalid"}),
    # Bad lines and many clients.
    "crash": (
        "hardness",
        {"hard.survives-words-missing", "hard.survives-cut-off", "hard.no-server-has-ended"},
    ),
    "ends-of-anything": (
        "hardness",
        {
            *("hard.survives-words-missing", "hard.survives-words-too-many", "hard.survives-http"),
            *("hard.survives-numbers-that-are-none", "hard.survives-numbers-of-thousands-of-digits"),
            *("hard.survives-not-utf8", "hard.survives-control-characters", "hard.survives-empty-lines"),
            *("hard.survives-braces-and-percents", "hard.survives-tls", "hard.survives-cut-off"),
            *("hard.survives-resets", "hard.no-server-has-ended"),
        },
    ),
    "hangs-up-at-once": ("places hardness", {"places.form", "hard.pipelined"}),
    "serves-few-clients": ("hardness", {"hard.cut-anywhere"}),
    "answers-where-it-was-cut": ("hardness", {"hard.cut-anywhere", "hard.long-line"}),
    "waits-for-the-end-of-a-long-line": ("hardness", {"hard.long-line"}),
    "hangs-up-on-a-long-line": ("hardness", {"hard.long-line", "hard.no-command-in-a-long-line"}),
    "counts-one-too-few": ("hardness", {"hard.longest-line"}),
    "obeys-a-long-line-in-silence": ("hardness", {"hard.no-command-in-a-long-line"}),
    "reads-on-in-a-long-line": ("hardness", {"hard.long-line", "hard.no-command-in-a-long-line"}),
    # A server lost and regained.
    "mourns": (
        "regained",
        {
            *("lost.others-answer", "lost.others-flood", "regained.catches-up", "regained.floods"),
            "regained.is-logged",
        },
    ),
    "floods-to-all-or-nobody": ("regained", {"lost.others-flood"}),
    "starts-once": ("regained", {"regained.answers"}),
    "catches-up-with-nobody": ("regained", {"regained.catches-up"}),
    "dials-once": ("regained", {"regained.catches-up", "regained.floods", "regained.is-logged"}),
    "mute-links": ("regained", {"lost.is-logged", "regained.is-logged"}),
    # Whole, and yet misleading.
    "fields": ("logs regained", set()),
}
"""By a way in which a herd is broken: the sections that judge it, and exactly the checks that fail. Cases are named
without `case.`."""


def _of_cases(expected: set[str]) -> set[str]:
    """Return the cases in which one of these answers is expected."""
    return {case.slug for case in cases.load_cases() if expected & {*case.expected}}


BROKEN["forgets-the-sign"] = (
    "cases",
    _of_cases({"at", "at+json"}) | {case.slug for case in cases.load_cases() if "{known}" in case.send},
)
BROKEN["says-goodbye"] = (
    "cases places hardness",
    # Where a server closes by itself it has said all before.
    {case.slug for case in cases.load_cases() if not case.closes} | {"places.form", "hard.pipelined"},
)
BROKEN["says-error"] = (
    "cases",
    # Each case that does not end its connection asks something that is no command behind it.
    {case.slug for case in cases.load_cases() if not case.half_close}
    | {case.slug for case in cases.load_cases() if {*case.expected} - {"at", "at+json"}},
)
