"""What can be set in the herd's file: one struct a table, each key with its unit, bounds, default and reason.

Every limit of the program stands here, or in rates.py. docs/make_configuration.py makes docs/configuration.md of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Security limits: the resources that one server spends at most on clients and neighbours."""

    max_line_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 8_192
    """Bytes of a client's line without its LF. It must be the same for the whole herd, since peers accept AT lines of
    up to 256 bytes more. 8 KiB is what HTTP servers allow for a line. The minimum is the 1,024 bytes that an answer
    copies."""

    max_client_bytes: Annotated[int, Meta(ge=64, le=1_048_576)] = 512
    """Bytes of a client's ID. A command with a longer one is invalid. An ID is kept twice for as long as its client is
    in the table, so short ones leave room for more clients. The longest names that people give to phones and machines
    have 255 bytes, as host names and file names do. Neighbours, journals and Redis may have longer ones from before:
    these are still learned."""

    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Client connections at once. Each costs a file descriptor and about 3 KiB. The default is twice the 10,000 that
    one process is expected to serve. The server lowers it at start if the system allows fewer descriptors."""

    max_answers_outstanding: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Answers of one connection that may wait (for Places, or for catch-up at start). At this limit the server stops
    reading the connection until an answer leaves."""

    write_buffer_bytes: Annotated[int, Meta(ge=4_096, le=1 << 30)] = 262_144
    """Bytes of answers that wait for a slow reader before the server stops reading its commands. The default is four
    default socket buffers, so a client that is only far away does not reach it."""

    slow_reader_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """Seconds after which a connection is closed if it stands at `write_buffer_bytes` and its client reads nothing.
    Long enough for a phone in a tunnel."""

    idle_seconds: Annotated[float, Meta(gt=0, le=604_800)] = 900.0
    """Seconds without a complete command after which a connection is closed. Long enough for a person at `nc` and for
    carriers' NAT; short enough that abandoned connections do not pile up."""

    peer_queue_bytes: Annotated[int, Meta(ge=65_536, le=1 << 32)] = 16_777_216
    """Bytes that may wait for one neighbour. Past this limit the link is closed, and the neighbour catches up later.
    The default holds about 180,000 updates, some seconds of a busy herd: a short pause does not close the link, and a
    dead neighbour costs little memory."""

    max_peer_connections: Annotated[int, Meta(ge=1, le=65_536)] = 64
    """Connections on the peer port that are not authenticated yet. Each neighbour needs one, for milliseconds. Past
    this limit the oldest is closed."""

    max_clients: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 5_000_000
    """Clients in the table. A report of a new client is refused at this limit. Reports that neighbours took are still
    learned up to a quarter more, so that servers agree."""

    on_full: Literal["refuse", "evict"] = "refuse"
    """What happens to a report of a new client when the table is at `max_clients` or `max_table_bytes`. `refuse`: it is
    refused. `evict`: the clients leave whose times are the earliest, as they have named them and as far as they count, and
    a report that is earlier than all others is refused. So a client whose clock is slow leaves first, however lately it
    was heard: this is the one order that is the same for all servers. It must be the same for the whole herd, like these two limits; then all servers
    keep the same clients. The table has parts, which fill up one after the other, so the first clients leave when it is
    full to nine tenths. Searching costs some 15 microseconds for each client that leaves, and three percent more memory. Whoever may report many
    new clients makes the herd forget others sooner; with `refuse`, it keeps new ones out."""

    max_tombstones: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    """Tombstones of erased clients and of revoked subjects of tokens, up to 300 bytes each. At seven eighths of this limit,
    erasures are refused; the rest is for revocations. What neighbours took is still learned up to a quarter more, so that
    servers agree."""

    max_clock_lead_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """Seconds by which a client's clock may be ahead of the server's, and its time still counts. Of a later time, only so
    much counts: the report is stored, with the time as the client has said it, but any report that a server receives so
    many seconds later replaces it. So a client with a wrong clock, or somebody who reports for it with a time from the
    future, keeps nobody out for longer. All servers of a herd must have the same value, because it decides which of two
    reports is the later one."""

    max_clock_skew_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 86_400.0
    """Seconds by which a server's clock may be ahead of a neighbour's. The neighbour skips, counts and logs a line
    that was received later than that. Otherwise a neighbour could forge lines that never grow too old, since
    `max_age_seconds` counts from the time of receipt. The default, a day, tolerates a clock in another time zone. A
    server whose own clock shows a time before 2020 does not check this, because its clock was never set. 0: no
    limit."""

    max_age_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 0
    """Seconds after which a location is forgotten, counted from the receipt by the server that the AT line names. It
    must be the same for the whole herd. 0: never. Older locations are neither learned nor replayed, and leave the
    table within `compare_seconds`."""

    max_table_bytes: Annotated[int, Meta(ge=65_536, le=1 << 44)] = 1_000_000_000
    """Bytes of all client IDs and AT lines in the table. A report that would exceed it is refused. The table needs
    this much memory, the IDs' bytes a second time, and about 200 bytes for each client: 2 GB at the defaults. Reports
    that neighbours took are learned up to a quarter more, as with `max_clients`."""

    max_places_in_flight: Annotated[int, Meta(ge=1, le=65_536)] = 4_096
    """Queries that wait for Places at once, about 6 KiB each. Past this limit, the asker with the most waiting queries
    (as in `asker_share`) gets UNKNOWN_ERROR for its last one, at once. With a deadline of 5 s, the default is enough for about 800
    queries a second to an upstream that hangs."""

    @property
    def clock_lead(self) -> int:
        """`max_clock_lead_seconds` in nanoseconds."""
        return round(self.max_clock_lead_seconds * 1_000_000_000)


class Timing(Struct, frozen=True, forbid_unknown_fields=True):
    """Intervals and deadlines, in seconds."""

    heartbeat_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    """A link carries a message at least this often. It is dead when silent for three times as long."""

    handshake_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.5
    """Time to connect to a neighbour, and again for both to authenticate. Linux repeats a lost SYN after 1 s, and the
    default leaves time for its answer."""

    backoff_seconds: Annotated[float, Meta(gt=0, le=3600)] = 1.0
    """The longest pause between two attempts to reach a neighbour."""

    compare_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """How often linked servers compare digests. Updates that floods have lost are repaired by then at the latest."""

    catch_up_seconds: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """How long a neighbour may take to answer a catch-up request before its link is closed. It may have millions of
    lines to hash first, in small parts."""

    ready_seconds: Annotated[float, Meta(ge=0, le=3600)] = 2.0
    """How long a starting server waits for its first catch-up before it is ready without one."""

    drain_seconds: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """How long a stopping server waits for answers from Places."""


class DurabilitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What an answered report survives."""

    fsync: Literal["everysecond", "always", "off"] = "everysecond"
    """When the journal is synced to disk. In all cases, a killed process loses nothing. A power cut costs at most a
    second with `everysecond`, and nothing with `always`, where every answer waits for the disk. With `off` it costs
    whatever the system had not yet written."""

    on_failure: Literal["refuse", "accept"] = "refuse"
    """While the journal cannot be written: refuse reports and erasures, or accept them without a promise. Then a restart
    may bring a client back that was erased meanwhile, until the server has caught up with its neighbours."""

    rewrite_bytes: Annotated[int, Meta(ge=4_096, le=1 << 40)] = 33_554_432
    """Bytes appended to the journal before it is rewritten as a snapshot. If the table is larger than twice this, half
    of the table's size is used instead. A start replays the snapshot and what was appended since, at about 3 s for a
    million lines."""


class ErasureSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of clients that were erased."""

    tombstone_seconds: Annotated[float, Meta(ge=1, le=1e9)] = 2_592_000.0
    """How long it is known that a client was erased: 30 days. It must be the same for the whole herd. A server that was
    away for more than seven eighths of this may still have the client in its journal, and does not use it: it starts
    empty, and catches up. Nothing may bring back an erased client after this time, so restore no older backups. At least
    `rewrite_seconds`."""

    rewrite_seconds: Annotated[float, Meta(ge=0.1, le=86_400)] = 3_600.0
    """After an erasure, the journal is rewritten within this time, so that the erased line leaves the disk. Erasures
    gather for half of it, because a rewrite writes the whole table."""


class TableSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the table of last locations is."""

    engine: Literal["herd", "redis"] = "herd"
    """`herd`: in every server; servers flood updates to one another. `redis`: in a Redis or Valkey Cluster, and
    servers keep nothing. This is for more clients or reports than one server can handle. See docs/redis.md."""


class RedisSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The cluster that holds the table if `engine` is `redis`. Paths are relative to the herd's file."""

    nodes: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Addresses of some of the nodes, such as `["10.0.0.1:6379", "10.0.0.2:6379"]`. Servers find the others through
    them."""

    user: str = "default"
    """The ACL user as which servers log in."""

    password_file: str | None = None
    """A file with the user's password. Without it: the systemd credential `redis-password`, then the variable
    PROXYHERD_REDIS_PASSWORD, then no password."""

    tls_authority: str | None = None
    """The authority that signed the nodes' certificates. If it is set, servers use TLS to Redis. A certificate must
    name the address, or the host name that its node announces."""

    tls_certificate: str | None = None
    """The certificate that servers show to Redis, if Redis asks for one."""

    tls_key: str | None = None
    """The private key of `tls_certificate`."""

    replicas: Annotated[int, Meta(ge=1, le=16)] = 1
    """How many replicas of a master must have a report before it is answered. With one, a report survives the loss of
    any one node, if the machines of its replicas are not overloaded. Each further replica needs one more node, which
    must be up."""

    timeout_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 1.2
    """How long a master may take to answer a batch, including its replicas. `cluster-node-timeout` of the cluster must
    be at least one and a half times as long, so that servers don't believe a master that has been replaced. Keep it
    above 1: Linux repeats a lost SYN after 1 s."""

    gather_seconds: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """How long reports and queries for one master are gathered before they are sent: each waits that much longer, but
    a batch holds more of them. 0: only until the batch before has returned, which is right for a few masters. With
    dozens of masters, 0.02 needs far fewer machines, according to the model in docs/report.md."""

    deadline_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 5.0
    """How long reports and queries wait while their part of the table is not available. Then their connection is
    closed without an answer. A failover takes about two seconds more than `cluster-node-timeout`."""


class PlacesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where nearby places come from."""

    provider: Literal["auto", "google", "google-new", "gazetteer"] = "auto"
    """`google`: the old Nearby Search. `google-new`: Nearby Search of the Places API (New), which works with new keys.
    `auto`: with a key, the old one, or the new one if the old one is not enabled for the key; without a key, the
    offline gazetteer."""

    base_url: str | None = None
    """A replacement for Google: the part of the URL before `/maps/api/place/nearbysearch/json` and
    `/v1/places:searchNearby`, such as the `http://127.0.0.1:10500` of `proxyherd places-sim`."""

    proxy: str | None = None
    """An HTTP proxy for calls to Google, such as `http://proxy.example:3128`. It is asked for a tunnel (CONNECT), so
    it sees neither the key nor locations. Environment variables such as HTTPS_PROXY are not read: only the herd's file
    counts."""

    key_file: str | None = None
    """A file with the key, relative to the herd's file. Without it: the systemd credential `google-places-api-key`,
    then the variable GOOGLE_PLACES_API_KEY."""

    language: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+\Z")] | None = None
    """The language of Google's answers, such as `de`. Without it Google chooses."""

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
    """The fields that `google-new` requests. They decide what a call costs: these are all in Google's cheapest tier
    for a Nearby Search (Pro). You can add `places.rating`, `places.userRatingCount`, `places.priceLevel` and
    `places.currentOpeningHours.openNow`, which are in a more expensive tier."""

    deadline_seconds: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """The total time for one query: waiting for its turn, every attempt, and the pauses between them."""

    attempt_seconds: Annotated[float, Meta(gt=0, le=600)] = 2.5
    """The time for one attempt: name look-up, connection, answer. The default is half of the deadline, so that a lost
    call can be repeated in time."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Calls for one query at most. Failed connections, late calls, invalid answers, 429 and 5xx are tried again within
    the deadline, after Retry-After and a random pause."""

    breaker_failures: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    """Attempts that must fail in a row before the circuit breaker opens; then queries are answered at once. 20
    failures in a row are no coincidence: if one call in ten fails, this happens once in 10^20 calls."""

    breaker_seconds: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """How long the breaker stays open before one call tests whether the upstream works again. Each failed test doubles
    the time, up to sixteen times, because failed calls also count towards the budget."""

    max_answer_bytes: Annotated[int, Meta(ge=1_024, le=1 << 28)] = 262_144
    """Bytes of an upstream answer; twenty results take about 30 KiB. Reading a hostile answer of this size delays
    other answers by about thirty milliseconds."""

    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Calls to the upstream at once, each on its own connection. Further queries wait; askers (as in `asker_share`)
    take turns. With a fifth of a second for a call, the default allows about 1,200 calls a second."""

    calls_per_minute: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 600
    """Calls to Google that the whole herd may make in any minute, including repeated ones. Each server has an equal
    share, and answers OVER_QUERY_LIMIT beyond it. 600 is Google's own default quota."""

    calls_per_day: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1_000
    """The same for any 24 hours. A call costs about three US cents, so 1,000 calls limit a day to 32 dollars."""

    asker_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """The greatest share of the calls in a minute, and in a day, that one asker may have of those that all others have
    left. With one half, an asker who is alone gets half of them, two get a third each, and there is always something left
    for one who comes new. Over it the answer is OVER_QUERY_LIMIT. An asker is the subject of a token, or else an
    address (a /64 network with IPv6); at an address that is `exempt` in `[rates]`, it is a connection. 1: no limit."""

    dollars_per_call: Annotated[float, Meta(ge=0, le=1_000)] = 0.032
    """The assumed price of a call in US dollars, for the metric that estimates the costs: Google's list price of a
    Nearby Search."""

    cache_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long an answer of the gazetteer is kept for the same query. 0: not at all."""

    google_cache_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """The same for Google's answers. Google's terms forbid this unless your contract allows it."""

    cache_bytes: Annotated[int, Meta(ge=0, le=1 << 34)] = 8_388_608
    """Bytes of all cached answers. The least recently used ones are removed first."""

    own_places: str | None = None
    """A GeoJSON or CSV file with your own places for the gazetteer, relative to the herd's file. `proxyherd gazetteer
    build` reads it."""


class TlsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS; it is off where no certificate is set. A port speaks either TLS or plain TCP. In a path, `{name}` stands
    for the server's name; a relative path is relative to the herd's file. Files are in PEM format, and read again at
    SIGHUP.
    """

    clients_certificate: str | None = None
    """The certificate that is shown to clients, followed by its chain."""

    clients_key: str | None = None
    """The private key of `clients_certificate`."""

    peers_authority: str | None = None
    """The authority that signed every server's certificate. Both neighbours show their certificates. Each must name
    its server as a DNS name in subjectAltName."""

    peers_certificate: str | None = None
    """The certificate that is shown to neighbours."""

    peers_key: str | None = None
    """The private key of `peers_certificate`."""

    peers_crl: str | None = None
    """The revoked certificates: lists (CRLs) signed by `peers_authority`, one after the other. A neighbour that shows
    one of these certificates gets no link, and at SIGHUP loses it. A list that has expired still holds."""


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The admin port: metrics, health, status page."""

    hosts: tuple[str, ...] = ()
    """Host headers that are accepted, besides those of loopback addresses; one without a port is accepted with any. Others
    get 403, as a protection against DNS rebinding."""

    positions: Literal["loopback", "always", "never"] = "loopback"
    """On which admin addresses the status page shows commands and clients' locations, which are personal data: on
    loopback addresses, on all, or on none. Everything else is shown on all. Everybody with access to the machine can
    reach loopback addresses."""


class WebSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The web port: HTTP, WebSocket, and apps on phones."""

    hosts: tuple[str, ...] = ()
    """Names and addresses of this port in requests (`Host`), besides loopback addresses; without a port, because any is
    accepted. Others get 403, as a protection against DNS rebinding."""

    allowed_origins: tuple[str, ...] = ()
    """Origins whose web pages may use this port: scheme, name, and a port if it is not the usual one, such as
    `https://app.example`. Pages of the port itself always may; those of other origins get 403."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of reverse proxies, such as `10.0.0.0/8`. Only they are believed who the client is
    (`X-Forwarded-For`)."""

    max_accuracy_m: Annotated[float, Meta(gt=0, le=1e9)] = 1_000.0
    """Metres. An app's location that is less accurate than this is not stored. The default leaves out most locations
    that come from cell towers alone, which are off by kilometres."""


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The log file of a server."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written. Commands are logged at `info`; grading and audits need them."""

    max_field_bytes: Annotated[int, Meta(ge=64, le=1_048_576)] = 1_024
    """Bytes of a logged field. Longer fields are cut, and their full length is logged beside them."""
