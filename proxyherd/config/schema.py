"""What can be set in the herd's file: one struct a table, each key with its unit, bounds, default and reason.

Every limit of the program stands here. docs/make_configuration.py makes docs/configuration.md of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Security limits: what one server spends at most on whoever talks to it."""

    max_line_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 8_192
    """Bytes of a client's line, its LF not counted; the same for the whole herd, since peers accept AT lines
    of this and 256. 8 KiB is what HTTP servers give a line; at least the 1,024 that an answer copies."""

    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Client connections at once. Each costs a file descriptor and about 3 KiB; twice the 10,000 that one
    process is expected to serve. Lowered at start where the system allows fewer descriptors."""

    max_answers_outstanding: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Answers of one connection that may wait (for Places, or for catch-up at start). Past it the connection
    is not read until one leaves: pipelining is served, hoarding is not."""

    write_buffer_bytes: Annotated[int, Meta(ge=4_096, le=1 << 30)] = 262_144
    """Bytes of answers that wait for a slow reader before its commands are not read any more. Four default
    socket buffers: a reader that is merely far away never meets it."""

    slow_reader_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """Seconds that a connection may stand at `write_buffer_bytes` without a byte leaving before it is
    dropped. A phone in a tunnel comes back within them."""

    idle_seconds: Annotated[float, Meta(gt=0, le=604_800)] = 900.0
    """Seconds without one whole command after which a connection is closed. Long enough for a person at
    `nc` and for carriers' NAT; short enough that abandoned connections do not pile up."""

    peer_queue_bytes: Annotated[int, Meta(ge=65_536, le=1 << 32)] = 16_777_216
    """Bytes that may wait for one neighbour; past it the link is dropped and caught up later. Some 180,000
    updates: seconds of a busy herd, so a pause is ridden out and a dead neighbour costs little."""

    max_peer_connections: Annotated[int, Meta(ge=1, le=65_536)] = 64
    """Connections on the peer port that have not proved themselves yet. Neighbours need one each, for
    milliseconds; past it the oldest goes."""

    max_clients: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 5_000_000
    """Clients in the table; a report of a client past it is refused. What
    neighbours took before they met the limit is learned up to a quarter more, so that servers still agree."""

    max_clock_lead_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 0
    """Seconds by which a client's clock may be ahead of the server's; a report from further on is refused where
    it arrives, and judged nowhere else. 0: any. A report from the far future cannot be replaced until then."""

    max_clock_skew_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 86_400.0
    """Seconds in the future at which a server may have received a report, by the clock of the server that learns it from
    a neighbour; a line from further on is skipped, counted and logged. Else a neighbour could forge lines that never
    grow too old, since `max_age_seconds` counts from then. One day: a clock set to another time zone is tolerated. A server whose own clock shows a time
    before 2020 judges nothing: its clock was never set. 0: any."""

    max_age_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 0
    """Seconds after which a location is forgotten, counted from when the server in its AT line received it; the
    same for the whole herd. 0: never. What is older is neither learned nor replayed, and leaves the table within
    `compare_seconds`."""

    max_table_bytes: Annotated[int, Meta(ge=65_536, le=1 << 44)] = 1_000_000_000
    """Bytes of all client IDs and AT lines in the table; a report that would go past them is refused. What the
    table takes is these, an ID's bytes once more, and some 200 for each client: 2 GB at the defaults. Neighbours'
    are learned up to a quarter more, as above."""

    max_places_in_flight: Annotated[int, Meta(ge=1, le=65_536)] = 4_096
    """Queries that wait for Places at once, some 6 KiB each; past it the last of the connection that has most of
    them is answered UNKNOWN_ERROR at once. At a deadline of 5 s it is what an upstream that hangs can pile up."""


class Timing(Struct, frozen=True, forbid_unknown_fields=True):
    """The herd's clocks, in seconds."""

    heartbeat_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    """A link says something at least this often, and is dead when silent for three of them."""

    handshake_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.5
    """For a connection to a neighbour to be made, and again for both to prove themselves. Linux sends a SYN that was
    lost again after 1 s: within 1.5 s the second one is answered."""

    backoff_seconds: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    """The longest pause between two attempts to reach a neighbour."""

    compare_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """How often linked servers compare digests; what floods lost is mended after this at the latest."""

    catch_up_seconds: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """How long a neighbour may owe the answer to a catch-up request before its link is dropped: it may have
    millions of lines to hash first, in slices."""

    ready_seconds: Annotated[float, Meta(ge=0, le=3600)] = 2.0
    """How long a starting server waits for a first neighbour to catch up from before it is ready alone."""

    drain_seconds: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """How long answers that wait for Places may hold up a server that was told to stop."""


class DurabilitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What an answered report survives."""

    fsync: Literal["everysecond", "always", "off"] = "everysecond"
    """When the journal is brought to disk. A killed process loses nothing either way; a power cut costs at most a
    second with `everysecond`, nothing with `always`, which makes every answer wait for the disk, and with `off`
    whatever the system had not written."""

    on_failure: Literal["refuse", "accept"] = "refuse"
    """Whether reports are refused while the journal cannot be written, or taken without a promise."""

    rewrite_bytes: Annotated[int, Meta(ge=4_096, le=1 << 40)] = 33_554_432
    """Bytes appended before the journal is rewritten as a snapshot; where the table is larger than twice that,
    half of its size. A start replays the snapshot and these, at some 3 s a million lines."""


class TableSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the table of last locations is."""

    engine: Literal["herd", "redis"] = "herd"
    """`herd`: in every server, which tells the others. `redis`: in a Redis or Valkey Cluster, and servers keep nothing:
    for more clients, or more reports, than one server can hold. See docs/redis.md."""


class RedisSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The cluster that holds the table, where `engine` is `redis`. Paths are relative to the herd's file."""

    nodes: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Addresses of some of its nodes, such as `["10.0.0.1:6379", "10.0.0.2:6379"]`; the others are found through
    them."""

    user: str = "default"
    """The ACL user that servers are."""

    password_file: str | None = None
    """A file with its password. Without it: the systemd credential `redis-password`, then the variable
    PROXYHERD_REDIS_PASSWORD; none of them: none."""

    tls_authority: str | None = None
    """The authority that signed the nodes' certificates; given, servers speak TLS to Redis. A certificate is made out
    to the address, or to the host name that its node announces."""

    tls_certificate: str | None = None
    """The certificate that servers show to Redis, where it asks for one."""

    tls_key: str | None = None
    """Its private key."""

    replicas: Annotated[int, Meta(ge=1, le=16)] = 1
    """How many replicas of a master must have a report before it is answered. With one, it survives the loss of any one
    node; each further one is another node, and another that must be up."""

    timeout_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 1.2
    """How long a master may take for what it is sent at once, its replicas included. Keep one and a half times as much
    below the cluster's `cluster-node-timeout`: a master that has been replaced meanwhile must not be believed. And above
    1: Linux sends a lost SYN again after 1 s."""

    gather_seconds: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """How long reports and queries for one master gather before they are sent to it: each waits as much longer, and more
    of them share a batch. 0: no longer than until the batch before has come back, which is right for a few masters.
    With dozens, 0.02 would save most of the machines, by the model of docs/report.md."""

    deadline_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 5.0
    """How long reports and queries wait while nobody can serve their part of the table, before their connection is
    closed without an answer. A failover takes some two seconds more than `cluster-node-timeout`."""


class PlacesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who answers what is near."""

    provider: Literal["auto", "google", "google-new", "gazetteer"] = "auto"
    """`google`: the old Nearby Search. `google-new`: Nearby Search of the Places API (New), the one that new keys
    can be given. `auto`: where there is a key, the old one, and the new one where that is not enabled for the key;
    without a key the offline gazetteer."""

    base_url: str | None = None
    """Whom to ask in Google's place: what stands before `/maps/api/place/nearbysearch/json` and
    `/v1/places:searchNearby`, such as the `http://127.0.0.1:10300` of `proxyherd places-sim`."""

    proxy: str | None = None
    """An HTTP proxy on the way to Google, such as `http://proxy.example:3128`; it is asked for a tunnel (CONNECT), in
    which it sees neither key nor locations. HTTPS_PROXY and the like in the environment are not read, since a herd is
    what its file says."""

    key_file: str | None = None
    """A file with the key; relative to the herd's file. Without it: the systemd credential
    `google-places-api-key`, then the variable GOOGLE_PLACES_API_KEY."""

    language: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+\Z")] | None = None
    """The language of Google's answers, such as `de`; without it Google chooses."""

    field_mask: Annotated[str, Meta(pattern=r"^[A-Za-z*][A-Za-z0-9.,*]*\Z")] = ",".join(
        f"places.{name}"
        for name in (
            "attributions",
            "businessStatus",
            "displayName",
            "iconBackgroundColor",
            "iconMaskBaseUri",
            "id",
            "location",
            "photos",
            "plusCode",
            "shortFormattedAddress",
            "types",
            "viewport",
        )
    )
    """What `google-new` asks for, and so what a call costs: all of these are of Google's cheapest tier for a Nearby
    Search (Pro). `places.rating`, `places.userRatingCount`, `places.priceLevel` and
    `places.currentOpeningHours.openNow` are understood as well; they are of a dearer one."""

    deadline_seconds: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """For one query in all: waiting for its turn, every attempt and the pauses between them."""

    attempt_seconds: Annotated[float, Meta(gt=0, le=600)] = 2.5
    """For one attempt: name look-up, connection, answer. Half of the deadline, so that a call that was lost on the
    way is made again in time."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Calls for one query at most: failed connections, calls that are late, answers that are none, 429 and 5xx are
    tried again within the deadline, after what Retry-After says and a random pause."""

    breaker_failures: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    """Attempts that fail one after another before the circuit breaker opens: queries are then answered at once. Too
    many for chance: one call in ten failing does this once in 10^20 calls."""

    breaker_seconds: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """How long the breaker stays open before it lets one call through, to see whether the upstream is back. Each such
    call that fails doubles it, up to sixteen times: calls are counted, also those in vain."""

    max_answer_bytes: Annotated[int, Meta(ge=1_024, le=1 << 28)] = 262_144
    """Bytes of an upstream answer; twenty results are some 30 KiB. Reading a hostile one of this size holds up other
    answers by some thirty milliseconds."""

    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Calls to the upstream at once, each on a connection of its own; the others wait, one asker as long as any
    other. At a fifth of a second each it is some 1,200 calls a second."""

    calls_per_minute: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 600
    """Calls to Google that the whole herd may make in any minute, retries included; each server has an equal share,
    and answers OVER_QUERY_LIMIT past it. 600 is what Google's own quota allows by default."""

    calls_per_day: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1_000
    """Likewise in any 24 hours. A call costs some three US cents: 1,000 bound a day to 32 dollars."""

    dollars_per_call: Annotated[float, Meta(ge=0, le=1_000)] = 0.032
    """What a call is taken to cost, in US dollars, for the metric that estimates the cost: Google's list price of a
    Nearby Search."""

    cache_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long an answer of the gazetteer is kept for the same question. 0: not at all."""

    google_cache_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """Likewise for Google, whose terms forbid it unless a contract says otherwise."""

    cache_bytes: Annotated[int, Meta(ge=0, le=1 << 34)] = 8_388_608
    """Bytes of all answers that are kept; those asked for longest ago go first."""

    own_places: str | None = None
    """A GeoJSON or CSV file with places of your own for the gazetteer, relative to the herd's file. It is read by
    `proxyherd gazetteer build`."""


class TlsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS, off where no certificate is named: a port speaks TLS or plain, never both. In a path `{name}` stands
    for the server's name, and a relative one is relative to the herd's file. Files are PEM, read again at SIGHUP.
    """

    clients_certificate: str | None = None
    """The certificate, and the chain behind it, that is shown to clients."""

    clients_key: str | None = None
    """Its private key."""

    peers_authority: str | None = None
    """The authority that signed every server's certificate. Neighbours show each other theirs, both ways, and
    each must be made out to its server's name (a DNS name in subjectAltName)."""

    peers_certificate: str | None = None
    """The certificate that is shown to neighbours."""

    peers_key: str | None = None
    """Its private key."""


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The admin port: metrics, health, status."""

    hosts: tuple[str, ...] = ()
    """Host headers that are served besides loopback's; others get 403, against DNS rebinding."""

    positions: Literal["loopback", "always", "never"] = "loopback"
    """Where the status page shows commands and where clients are, which is personal data: at admin addresses that are
    loopback's, at all, or at none. Everything else is shown everywhere. Whoever shares the machine reaches loopback."""


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The log file of a server."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written. Commands are `info`: a grader, and an audit, want them."""

    max_field_bytes: Annotated[int, Meta(ge=64, le=1_048_576)] = 1_024
    """Bytes of a logged field; longer ones are cut, their whole length beside them."""
