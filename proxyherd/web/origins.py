"""Who may ask, as far as browsers tell: the rules about Host, Origin, Sec-Fetch-Site and Referer. And the address of a
client behind proxies.

Any web page can send requests to this port from its visitor's browser, and some without asking before. So:

- Host is a loopback name or a configured one: a page whose own name leads to this port (DNS rebinding) says its name.
- Origin, if there is one, is the port's own or an allowed one. An app that is no browser sends none.
- An image or a link of a page has no Origin, but browsers say in Sec-Fetch-Site that it is another site's. Only pages may
  be asked for like that.
- They say so only to ports with TLS and to loopback. Elsewhere there is Referer, if the page has one and does not hide it.
  A page that hides it can make its visitor's browser send the GET of an app, which reports a client. It reads no answer,
  and sends no other request. Only TLS and passwords help against that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from proxyherd.net import http
from proxyherd.net.networks import IpAddress, Networks, parse_ip
from proxyherd.web.problems import HOST, ORIGIN, Problem

EXPOSED: Final = "Proxyherd-At, Retry-After"
"""Headers of answers that pages of allowed origins may read."""

_MOST_PROXIES: Final = 32
"""Addresses in X-Forwarded-For that are looked at: more than proxies ever stand in a row, and each costs time."""

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Origins:
    """The rules of one port. `hosts`: names in Host, besides loopback's. `allowed`: origins of other sites' pages that
    may ask, such as `https://map.example`. `tls`: whether the port speaks TLS.
    """

    def __init__(self, hosts: Iterable[str] = (), allowed: Iterable[str] = (), *, tls: bool = False) -> None:
        self._hosts = tuple(hosts)
        self._accepted: str | None = None  # the latest Host that was: nearly all requests have the same
        self._allowed = frozenset(map(_plain, allowed))
        # A page that came by TLS is the port's own too: a proxy may have taken the TLS off.
        self._schemes = ("https",) if tls else ("http", "https")

    def check_host(self, hosts: Sequence[str]) -> str:
        """Return the Host of a request; `hosts`: all its headers Host. Raises Problem."""
        if len(hosts) == 1 and hosts[0] == self._accepted:
            return hosts[0]
        if len(hosts) != 1 or not http.accepts(hosts[0], self._hosts):
            raise Problem(
                HOST, "Add it to hosts in [web] of the herd's file, if it is a name of this server."
            )
        self._accepted = hosts[0]
        return hosts[0]

    def check_origin(
        self,
        host: str,
        origins: Sequence[str],
        fetch_site: str = "",
        referer: str = "",
        *,
        page: bool = False,
    ) -> str:
        """Return the Origin of a request if it is another site's that is allowed, or "". `origins`: all its headers
        Origin; `fetch_site`: its Sec-Fetch-Site; `referer`: its Referer; `page`: it asks for a page for people, which does
        nothing. Raises Problem.
        """
        if not origins:
            if page or fetch_site in ("none", "same-origin"):
                return ""
            if not fetch_site and (not referer or _origin_of(referer) in self._own(host) | self._allowed):
                return ""
        elif len(origins) == 1:
            origin = _plain(origins[0])
            if origin in self._own(host):
                return ""
            if origin in self._allowed:
                return origins[0]
        raise Problem(
            ORIGIN, "Add the origin to allowed_origins in [web] of the herd's file, if you trust its pages."
        )

    def _own(self, host: str) -> set[str]:
        """Return the origins of the port's own pages."""
        return {_plain(f"{scheme}://{host}") for scheme in self._schemes}

    def headers(self, origin: str) -> dict[str, str]:
        """Return the headers of an answer to a page of this origin, which was allowed; "" for all others (CORS)."""
        if not origin:
            return {"Vary": "Origin"} if self._allowed else {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": EXPOSED,
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }

    def preflight(self, origin: str, methods: Iterable[str]) -> dict[str, str]:
        """Return what the answer has besides `headers`, with which a browser allows a page of this origin to use the
        methods.
        """
        if not origin:
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": "Content-Type, Content-Encoding, Authorization",
            "Access-Control-Max-Age": "600",
        }


def _plain(origin: str) -> str:
    """Return an origin as browsers spell it: in small letters, and without the port that its scheme has anyway."""
    origin = origin.lower()
    scheme, _, _ = origin.partition(":")
    return origin.removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _origin_of(url: str) -> str:
    """Return the origin of a page."""
    scheme, separator, rest = url.partition("://")
    return _plain(f"{scheme}{separator}{rest.partition('/')[0]}")


class Proxies:
    """The proxies that an operator trusts to say whom they speak for: addresses, or networks such as `10.0.0.0/8`."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = Networks(trusted)
        self.any: Final = bool(self._networks)
        """Whether there is one at all, so that a request need not ask for more."""

    def trusts(self, peer: str) -> bool:
        """Return whether this address is a proxy's."""
        address = parse_ip(peer) if self._networks else None
        return address is not None and address in self._networks

    def client_address(self, peer: str, forwarded: Iterable[str]) -> str:
        """Return the address of a client. `peer`: whose connection it is; `forwarded`: the headers X-Forwarded-For, in
        order. Each proxy adds the address it was called from on the right, and so that side is read first: the rest
        may be the client's own invention.
        """
        if not self._networks:
            return peer
        found = parse_ip(peer)
        for text in reversed(",".join(forwarded).rsplit(",", _MOST_PROXIES)[-_MOST_PROXIES:]):
            before = _address(text.strip())
            if found is None or before is None or found not in self._networks:
                break
            found = before
            peer = str(found)
        return peer


def _address(text: str) -> IpAddress | None:
    """Return an address, which may have a port, as some proxies write it; None if it is not one, or has a scope, which is
    any text, and means something only to the machine that has it.
    """
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return None if "%" in text else parse_ip(text)
