"""Judges any herd that speaks the client protocol, from outside, by what it answers and what its logs say.

The rule: nothing here knows how the herd is built; of the rest of the package it uses only `escapes` and `files`. A
server's output is untrusted: it leads to an answer, a `Fault`, `NotSeen`, `NotJudged` or `NotApplicable`, within a
deadline, and never to a traceback. A check counts only if its rule could be seen to hold or to be broken, and each
fault is marked once.

    faults    how a check ends if it does not pass
    forms     what a check can be about, other than the substance                              pure
    answers   the forms of answers                                                             pure
    cases     the protocol by example                                                          pure
    dialect   how a server wants to be spoken to, and how it answers                            pure
    connections one connection to a server, in its dialect
    servers   one server as its clients see it: reports, queries
    exchanges one exchange with a server that is being met
    meeting   finds out the dialect of a server
    outside   whether Google can be reached, for herds that ask it
    topology  who is linked with whom, in a file of the user's
    herds     the servers of one herd, their links and their logs
    processes the descendants of processes
    guard     a second process, so that nothing that was started outlives the grading
    last_words what a started program printed last
    keeping   starts, ends and restarts the servers of a herd
    commanded stops and starts the servers of a running herd
    playing   plays one example
    checks    what a check is, and a judgement
    causes    which fault explains which                                                       pure
    endless   floods that never end
    web_client a client of a server's web port
    formal, conformance, times, floods, hardness, places, logged, web, regaining: the checks, a section each
    judging   runs all checks
    by_hand   how to see a fault by hand
    rubric    which checks count, and for how many points; profiles are in rubrics/            pure
    report    the results, and the points by a rubric                                          pure
    report_text, report_files: the report for people; as JSON and JUnit                        pure
    submissions  those of a class: folders, archives and programs
    sandbox   the command lines around a submission                                            pure
    cgroups   limits for all processes of a submission together
    google    names and a certificate for a stand-in for Google in sandboxes
    inside    what runs first in a sandbox
    records   the folder of the results of a class
    batch     grades a class, each submission in its sandbox
    table     the results of a class as CSV and HTML                                           pure
"""
