"""Judges any herd that speaks the client protocol, from outside, by what it answers and what its logs say.

The rule: nothing here knows how the herd is built; of the rest of the package it uses `escapes` and `files` alone. What a server says is a stranger's: it ends as an answer, as a
`Fault`, `NotSeen` or `NotApplicable`, within a deadline, and never as a traceback. A check is counted only where the rule that it
is about could be seen to hold or to be broken.

    faults    what a check ends with when it does not pass
    answers   what answers look like                                                           pure
    cases     the protocol by example                                                          pure
    servers   one server as its clients see it: connections, reports, questions
    herds     the servers of one herd, who is linked with whom, their logs
    processes who descends from whom
    guard     a second process, so that nothing that was started outlives the grading
    keeping   starts, ends and starts again the servers of a herd
    playing   plays one example
    checks    what a check is
    conformance, times, floods, hardness, places, logged, regaining: the checks, a section each
    judging   runs all checks
    report    what came out, as text, JSON and JUnit                                           pure
"""
