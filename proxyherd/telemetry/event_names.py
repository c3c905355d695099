"""The names of all events in the log, for those who read logs: docs/logs.md describes each, in this order."""

from __future__ import annotations

from typing import Final

EVENT_NAMES: Final = (
    *("command", "commands_left_out", "client_opened", "line_unfinished", "client_closed", "client_refused"),
    *("token_used", "token_refused", "client_over_rate", "places", "places_call", "places_spared"),
    *("places_breaker",),
    *("flood_sent", "flood_received", "peer_opened", "peer_closed", "peer_unreachable", "peer_refused"),
    *("peer_key_differs", "peer_settings_differ", "peer_line_skipped", "caught_up"),
    *("started", "replayed", "ready", "limit_lowered", "cannot_listen", "listening", "places_opened"),
    *("places_key_unusable", "log_reopened", "reloaded", "token_keys_read", "token_keys_unusable"),
    *("reload_failed", "table_key_differs", "crl_expired", "certificate_expired"),
    *("stopping", "stopped", "internal_error"),
    *("masters", "master_up", "master_down", "master_full", "master_has_room", "master_unsafe"),
    *("node_failed",),
    *("journal_rewritten", "clients_evicted", "journal_torn", "journal_damaged", "journal_lacks"),
    *("doubtful_dropped", "journal_outdated", "journal_outdated_kept", "journal_failing", "journal_whole"),
)
"""Others that stand in a log are of other versions."""
