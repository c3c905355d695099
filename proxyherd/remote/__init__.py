"""What the command line does to a herd from outside: asks its ports, reads its logs and journals.

    ask        one question to one server
    web_ports  one question to a web port
    erasures   of clients of a running herd, over a web port
    nearby     who is near a place, over a web port
    events     what happens to clients that are followed, over a web port
    progress   how far the servers of a herd are with their start
    polling    all servers again and again, for `status --watch`
    logfiles   the lines of a log that grows and is rotated
    tailing    the events in them: merged, filtered, printed                                  pure
    exporting  the last locations in a journal, as GeoJSON or CSV

No server imports it.
"""
