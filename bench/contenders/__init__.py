"""The servers that the herd is measured against, each as its own community would write it.

A contender is one small program, `PROGRAM HERD.json NAME [--equal | --bare]`: it serves as NAME of the herd in that file, on
127.0.0.1, and logs into NAME.log beside the file. Every one of them keeps the rules of the client protocol: it
validates a report, compares times exactly, stores and floods only news, and answers an AT line. As small herds do, it
takes the AT lines of other servers on the clients' port and believes them; nothing is kept on disk, nobody catches up.

`--equal` asks for the work that proxyherd does for each command: one line of JSON in the log, and links that stay.
`--bare` asks for the least that answers: parse, keep the table, answer; no log, and no neighbours.

The herd's file: `{"Clark": {"port": 10003, "neighbours": ["Jaquez"]}, ...}`.
"""
