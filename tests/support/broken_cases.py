"""The herds that are broken, each in one way, and the checks that must see it: sections, and names of checks."""

from __future__ import annotations

from proxyherd.grading import judging

SECTIONS = {section.name: section for section in judging.SECTIONS}
UNENDED_HTTP = "an-http-request-as-the-last-line-without-lf"
HTTP = "an-http-request-is-answered-and-then-the-server-closes"
BEHIND_HTTP = "nothing-behind-an-http-request-is-read"
BEFORE_HTTP = "answers-that-are-owed-before-an-http-request-come-first"
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
        "forms cases",
        {"form.echo"},
    ),
    "waits-for-lf": (
        "forms cases",
        {"form.end-of-stream"},
    ),
    "skips-empty-lines": ("forms cases", {"form.blank-lines"}),
    "takes-one-line-a-packet": (
        "forms cases",
        {"form.packets"},
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
    "nobody-at-zero": ("cases", {"zero"}),
    "thanks-for-reports": ("forms times floods places logs cases", {"plain-report"}),
    "knows-no-bounds": (
        "cases",
        {"latitude-90-000001", "longitude-181", "latitude-past-90-by-less-than-a-float-can-tell"},
    ),
    "leaves-out-the-poles": ("cases", {"the-poles-and-the-date-line"}),
    "wants-padding": ("forms cases", {"form.whole-degrees", "unpadded", "longitude-181"}),
    "reads-times-as-python-does": (
        "cases",
        {"ten-decimals", "nan", "inf", "negative", "exponent", "underscores", "plus-sign"},
    ),
    "takes-words-for-times": ("cases", {"time-a-word", "nan", "inf"}),
    "wants-nine-decimals": ("cases", {"whole-seconds", "one-decimal", "far-in-the-future"}),
    "wants-the-time-to-be-near": ("cases", {"far-in-the-future"}),
    "reads-numbers-as-python-does": (
        "cases",
        {
            *(
                "radius-50-0001",
                "radius-51",
                "radius-negative",
                "radius-signed",
                "radius-with-exponent",
                "radius-a-word",
            ),
            *("bound-21", "bound-negative", "bound-fractional", "a-bound-of-5-000-digits"),
        },
    ),
    "wants-small-whole-numbers": (
        "cases",
        {"radius-and-bound-at-their-limits", "fractional-radius", "radius-0", "bound-0"},
    ),
    "knows-everybody": ("cases", {"unknown-client"}),
    "asks-for-nothing": ("cases places", {"places.form"}),
    "reads-on-after-http": ("cases", {HTTP, BEHIND_HTTP, BEFORE_HTTP}),
    "closes-at-what-resembles-http": ("cases", {LIKE_HTTP}),
    "forgets-the-sign": ("forms cases", {"form.sign"}),
    "says-goodbye": ("forms cases places hardness", {"form.end-of-stream"}),
    "says-error": ("forms cases", {"form.echo"}),
    "ignores-unknown-words": ("forms places cases", {"form.echo"}),
    "wants-cr-lf": ("forms cases places hardness", {"form.line-end"}),
    "waits-for-the-half-close": ("forms times floods cases hardness", {"form.half-close"}),
    "closes-behind-its-answer": ("forms cases places hardness", {"form.closing"}),
    "leaves-out-lf": ("forms cases places hardness", {"form.final-lf"}),
    "leaves-out-the-last-lf": ("forms cases places", {"form.json-end"}),
    "writes-floats": ("forms times cases", {"form.decimals"}),
    "keeps-times-as-floats": ("forms floods places logs cases hardness regained", {"form.operands"}),
    # Times.
    "float": ("times", {"times.difference-is-exact"}),
    "turns-the-difference-round": ("times", {"times.difference-is-received-less-sent"}),
    "keeps-the-first": ("times", {"times.later-report-counts"}),
    "keeps-the-last": ("times", {"times.earlier-report-does-not-count"}),
    "counts-equal-times": ("times", {"times.equal-time-does-not-count"}),
    "compares-times-as-floats": ("times", {"times.a-nanosecond-counts"}),
    "compares-times-as-text": ("times", {"times.compared-as-numbers"}),
    # Floods.
    "no-flood": ("floods regained", {"floods.reach-every-server"}),
    "floods-late": ("floods", {"floods.neighbours-know-at-once"}),
    "loops": ("floods", {"floods.end"}),
    "saturates": ("floods", {"floods.end"}),
    "argues-for-ever": ("floods", {"floods.end"}),
    "hears-of-new-clients-only": ("floods", {"floods.newest-wins-everywhere"}),
    "floods-stale-reports": ("floods", {"floods.stale-reports-stay"}),
    "first": ("floods", {"floods.equal-times-end-alike"}),
    "at": ("floods", {"at.teaches-nobody"}),
    "believes-at-in-silence": ("floods", {"at.teaches-nobody"}),
    "believes-at-of-known-clients": ("floods", {"at.replaces-nothing"}),
    "says-nothing-to-at": ("floods cases", {"at.answered-as-invalid"}),
    # Places.
    "hangs-up-without-google": ("places logs", {"places.form"}),
    "leaves-out-the-status": ("cases places", {"places.fields"}),
    "ignores-the-bound": ("cases places", {"places.bound"}),
    "always-finds-something": ("places", {"places.nothing-asked"}),
    "overtakes-itself": ("places", {"places.in-order"}),
    # Logs.
    "mute-at": ("logs", {"logs.iamat"}),
    "mute-json": ("logs", {"logs.whatsat"}),
    "mute-invalid": ("logs", {"logs.invalid"}),
    "mute-commands": ("logs", {"logs.iamat", "logs.whatsat", "logs.invalid"}),
    # Bad lines and many clients.
    "crash": (
        "hardness",
        {"hard.survives-words-missing", "hard.survives-cut-off"},
    ),
    "ends-of-anything": (
        "hardness",
        {
            *("hard.survives-words-missing", "hard.survives-words-too-many", "hard.survives-http"),
            *("hard.survives-numbers-that-are-none", "hard.survives-numbers-of-thousands-of-digits"),
            *("hard.survives-not-utf8", "hard.survives-control-characters", "hard.survives-empty-lines"),
            *("hard.survives-braces-and-percents", "hard.survives-tls", "hard.survives-cut-off"),
            "hard.survives-resets",
        },
    ),
    "leaves-in-the-end": ("hardness", {"hard.no-server-has-ended"}),
    "hangs-up-at-once": ("forms cases places hardness", {"form.end-of-stream"}),
    "serves-few-clients": ("hardness", {"hard.cut-anywhere"}),
    "answers-where-it-was-cut": ("hardness", {"hard.cut-anywhere", "hard.long-line"}),
    "waits-for-the-end-of-a-long-line": ("hardness", {"hard.long-line"}),
    "hangs-up-on-a-long-line": ("hardness", {"hard.long-line", "hard.no-command-in-a-long-line"}),
    "counts-one-too-few": ("hardness", {"hard.longest-line"}),
    "obeys-a-long-line-in-silence": ("hardness", {"hard.no-command-in-a-long-line"}),
    "reads-on-in-a-long-line": ("hardness", {"hard.long-line", "hard.no-command-in-a-long-line"}),
    # A server lost and regained.
    "mourns": ("regained", {"lost.others-answer"}),
    "floods-to-all-or-nobody": ("regained", {"lost.others-flood"}),
    "starts-once": ("regained", {"regained.answers"}),
    "catches-up-with-nobody": ("regained", {"regained.catches-up"}),
    "dials-once": ("regained", {"regained.floods"}),
    "mute-links": ("regained", {"lost.is-logged", "regained.is-logged"}),
    # Whole, and yet misleading.
    "fields": ("logs regained", set()),
}
"""By a way in which a herd is broken: the sections that judge it, and exactly the checks that fail. Cases are named
without `case.`."""

EXPLAINED: dict[str, tuple[str, set[str]]] = {
    "waits-for-lf": (
        "cases",
        {"no-lf-then-end-of-stream", "the-answer-to-a-line-without-lf-ends-in-lf", UNENDED_HTTP},
    ),
    "says-goodbye": (
        "cases hardness",
        {"half-close-after-a-whole-line", "one-byte-at-a-time", "unknown-word", "hard.pipelined"},
    ),
    "takes-one-line-a-packet": ("cases", {"three-lines-in-one-packet", "two-empty-lines"}),
    "skips-empty-lines": ("cases", {"empty-line", "two-empty-lines"}),
    "strips-its-copy": ("cases", {"blank-line", "a-surplus-cr-is-copied", "odd-spacing-is-copied"}),
    "wants-padding": ("cases", {"whole-degrees"}),
    "at": ("cases", {"at-from-a-client"}),
}
"""Checks that are not judged in these ways, because other checks carry the mark; they fail where nothing is explained."""
