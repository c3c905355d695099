"""HTTP/1.1 as a conversation: a request and its answer at a time.

A request must come within a deadline, and gets its answer within another. What lies behind a request is not read before
it is answered. Whoever breaks the rules of HTTP, or sends a body without a good token, gets a problem as the last answer.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from proxyherd.core.conversation import OPEN, Ending, Stage
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Line
from proxyherd.web import problems
from proxyherd.web.access import Access, TokenProblem, UnknownYet, without_token
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.bodies import has_large_area, work_of, work_of_text
from proxyherd.web.conversations.base import READ_AHEAD, OwedCommands, Site, WebConversation, WebWatch
from proxyherd.web.conversations.http_bytes import CONTINUE, spelled_answer, upgraded
from proxyherd.web.conversations.http_waits import RequestWait
from proxyherd.web.exchanges import Exchanges, WebExchange
from proxyherd.web.follows import StreamAnswer, StreamRequest
from proxyherd.web.handshakes import Upgrade, check_upgrade
from proxyherd.web.problems import Problem
from proxyherd.web.requests import ReadRequest, RequestReader
from proxyherd.web.routes import Routed

IDLE_SECONDS: Final = 60.0
"""How long a connection may be without a whole request."""

BODY_SECONDS: Final = 30.0
"""How long the body of a request may take, once its headers are there."""

_SIGNATURE_LINES: Final = 16
"""Lines that take as much work as checking the signature of a token."""

_ANSWER_BYTES: Final = 65_536
"""Bytes of answers after which a turn reads no further request of the client."""


class HttpConversation(WebConversation):
    """A connection that speaks HTTP."""

    __slots__ = ("_origin", "_reader", "_request", "_wait", "upgrade")

    owed: Exchanges

    def __init__(self, site: Site, watch: WebWatch, reader: RequestReader, now: float) -> None:
        super().__init__(site, watch, now)
        self.owed = Exchanges()
        self.owe = self.owed.owe
        self.upgrade: Upgrade | StreamAnswer | None = None
        self._reader = reader
        self._request: ReadRequest | None = None  # that is served
        self._origin = ""  # of this request, if it is another site's
        self._wait = RequestWait(watch)

    # What arrives. -------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Put aside what arrived."""
        if self.stage is OPEN:
            self._reader.receive(data)
            self.reads = self._reader.waiting <= READ_AHEAD
            self.more = not self.owed

    def receive_eof(self) -> bool:
        """Note that the client has closed its sending half. Return whether the shell must keep its own half open."""
        if self.stage is Stage.LINGERING:
            self._end(Stage.CLOSED, Ending.CLOSE)
        elif self.stage < Stage.HALF_CLOSED:
            self.stage = Stage.HALF_CLOSED
        self.more = True
        return True

    def rest(self) -> bytes:
        """Return what has arrived for the protocol that the connection goes on with."""
        self._reader.close()
        return self._reader.rest()

    def lose(self, *, broken: bool) -> None:
        """Note that the connection has ended; `broken`: not by a close."""
        super().lose(broken=broken)
        self._reader.close()

    # Requests and their answers. -----------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether received bytes can still be taken, or are still to be answered."""
        return super().waits or self._wait.request is not None

    def take(self, most: int, now: float) -> list[Line]:
        """Return lines of one request to answer now. Up to `most` requests that need no line are answered besides."""
        self.more, self.besides = False, 0
        if self._slow.since is not None or self.gone:
            return []
        if not self.owed:
            self._reader.spent = 0
            self._serve_some(most, now)
            self.besides += self._reader.spent
        if self.stage is OPEN:
            self.reads = self._reader.waiting <= READ_AHEAD
        lines = self.owed.take(most)
        if self.owed.more:
            self.more = True
        return lines

    def _serve_some(self, most: int, now: float) -> None:
        """Serve the requests that are there, up to one that needs a turn, or must wait."""
        access = self._site.routes.access
        for _ in range(most):
            request = self._wait.request or self._read(most, now)
            if request is None:
                return
            target, body = request.target, request.body
            is_large = has_large_area(target, body)
            if is_large and not self._site.large.may_read(self):
                self._wait.put_off(request)
                self.more = True
                self.besides += 1
                return
            tried = access.tried if access is not None else 0
            self._serve(request, now)
            if access is not None:
                self.besides += _SIGNATURE_LINES * (access.tried - tried)
            if self._wait.request is not None:
                return
            encoding = request.headers.get("Content-Encoding", "")
            if is_large and not encoding:
                self.besides += 1 + work_of_text(len(target) + len(body))
            else:
                self.besides += work_of(len(body), encoding)
            if self.owed or self.upgrade is not None or self.gone:
                return
            if self.besides >= most or sum(map(len, self._out)) > _ANSWER_BYTES:
                break
        self.more = self._reader.more

    def _read(self, most: int, now: float) -> ReadRequest | None:
        """Return the next request if it is there."""
        has_begun = self._reader.begun
        try:
            request = self._reader.read(most)
        except Problem as problem:
            self._refuse(problem, "bad request")
            return None
        if request is None:
            self._starts_to_wait = self._starts_to_wait or self._reader.begun is not has_begun
            if self._may_go_on(now):
                if self._reader.continues():
                    self._out.append(CONTINUE)
                self.more = self._reader.more
        return request

    def _may_go_on(self, now: float) -> bool:
        """Return whether the body of a request may come, and let it count for its sender."""
        head = self._reader.head()
        if head is None:
            return True
        access, subject = self._site.routes.access, None
        if access is not None:
            subject = self._subject_of(access, without_token(head), now)
        if not self.gone:
            asker = self._watch.asker(head.headers, subject)
            self._reader.charge(asker.payer if asker is not None else "")
        return not self.gone

    def _subject_of(self, access: Access, request: ReadRequest, now: float) -> bytes | None:
        """Return the subject of a request whose body is on its way. One without a good token is refused: it would only take
        room from others.
        """
        tried, subject, self._origin = access.tried, None, ""
        try:
            self._origin = self._site.routes.admit(request)
            subject = access.grant(request, self._site.clock()).subject.encode()
        except UnknownYet:
            pass
        except Problem as problem:
            self._wait.asker, self._request = self._watch.asker(request.headers, None), request
            self._wait.count(1, now)
            if isinstance(problem, TokenProblem):
                self._watch.refused(problem.reason)
            self._reader.close()
            self._refuse(problem, "bad request")
        self.besides += _SIGNATURE_LINES * (access.tried - tried)
        return subject

    def _serve(self, request: ReadRequest, now: float) -> None:
        """Answer a request, or begin the exchange that will, or let it wait."""
        self._origin, self.subject = "", None
        self._starts_to_wait = True
        routes = self._site.routes
        if routes.access is not None:
            request = without_token(request)
        self._request = request
        if self._wait.is_used:
            self._wait.end()
        try:
            self._origin = routes.admit(request)
            found = self._find(request, now)
        except Problem as problem:
            if isinstance(problem, TokenProblem):
                self._watch.refused(problem.reason)
            self._respond(of_problem(problem))
        except Exception as error:  # noqa: BLE001 - a fault of ours, for the log and not for whoever asks
            self._fault(error)
        else:
            if isinstance(found, WebExchange):
                self._begin(request, found, now)
            elif isinstance(found, Upgrade):
                self._upgrade(found)
            elif isinstance(found, WebAnswer):
                self._respond(found)

    def _find(self, request: ReadRequest, now: float) -> Routed | None:
        """Return what a request is about, and count it; None if it must wait."""
        wait = self._wait
        if wait.for_sender(request, None, now):
            return None
        try:
            found = self._site.routes.find(request, self._site.clock())
        except Exception as error:
            if isinstance(error, UnknownYet) and wait.for_server(request, now):
                return None
            wait.count(1, now)
            raise
        if not isinstance(found, WebAnswer) and found.grant is not None:
            self.subject = found.grant.subject.encode()
            if wait.for_sender(request, self.subject, now):
                return None
        if wait.asker is not None:  # `count`, without the call
            wait.asker.use(1, now)
        if isinstance(found, (WebAnswer, WebExchange)):
            return found
        return self._changing(request, found)

    def _begin(self, request: ReadRequest, exchange: WebExchange, now: float) -> None:
        self._watch.begins(exchange.via, exchange.grant)
        if len(exchange.lines) > 1:  # one is counted with the request
            self._wait.count(len(exchange.lines) - 1, now)
        if exchange.lines:
            self.owed.add(exchange)
            if len(request.body) > READ_AHEAD:  # others may need its room while this one waits
                self._request = replace(request, body=b"")
        else:
            self._finish(exchange)

    def _changing(self, request: ReadRequest, found: Upgrade | StreamRequest) -> Upgrade | WebExchange:
        """Return what lets the connection go on as something else. Raises Problem if it may not."""
        if isinstance(found, Upgrade):
            check_upgrade(request)
        if self.stage is not OPEN:
            raise Problem(problems.NOT_TAKEN, "This server stops: ask another one.")
        if not self._watch.may_upgrade():
            raise Problem(problems.RATE, "Your address has too many connections to this server.")
        if isinstance(found, Upgrade):
            return found
        self._follower = Follower(self._watch)
        return found.exchange(self._follower)

    def _upgrade(self, found: Upgrade) -> None:
        self._watch.begins("websocket", found.grant)
        if found.refusal is not None:
            self._watch.refused(found.refusal.reason)
        self._watch.answered(101)
        self._out.append(upgraded(found))
        self.upgrade = found

    def answer(self, _: list[bytes]) -> bytes:
        """Return what is to be sent. Answers come with their replies, by `owe`."""
        return self.flush()

    def release(self) -> tuple[OwedCommands, bytes]:
        """Answer the request if all replies are there. Return the commands whose replies are, and the bytes to send."""
        released = self.owed.release()
        for exchange in self.owed.finished():
            if not self.gone:
                self._finish(exchange)
        if not self.owed and self._reader.more:
            self.more = True
        return released, self.flush()

    def _finish(self, exchange: WebExchange) -> None:
        try:
            answer = exchange.finish(exchange.replies)
        except Problem as problem:
            answer = of_problem(problem)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)
            return
        else:  # what was refused is sent again, and the judge may have consumed something too
            if exchange.consumed:
                self._watch.consumed(exchange.via, exchange.consumed)
        self._respond(answer)

    def _fault(self, error: Exception) -> None:
        self._watch.fault(error)
        self._respond(of_problem(Problem(problems.FAULT, "The server's log says what is wrong.")))

    def _respond(self, answer: WebAnswer) -> None:
        """Send the answer to the request that is served, or to what was none."""
        request, self._request = self._request, None
        if isinstance(answer, StreamAnswer):
            if self.stage is OPEN:
                self.upgrade = answer
            else:
                answer = of_problem(Problem(problems.NOT_TAKEN, "This connection ends."))
        closes = (
            request is None
            or request.closes
            or self.upgrade is not None
            or request.upgrades  # what follows is of another protocol
            or (self.stage is not OPEN and self._is_last())
        )
        headers = self._site.routes.origins.headers(self._origin)
        second = self._site.date() // 1_000_000_000
        self._out.append(spelled_answer(answer, request, headers, closes=closes, second=second))
        self._watch.answered(answer.status)
        self._starts_to_wait = True
        if closes and self.upgrade is None:
            self._linger()

    def _is_last(self) -> bool:
        """Return whether a conversation that ends serves no further request."""
        return self.stage is not Stage.HALF_CLOSED or not self._reader.more

    def _refuse(self, problem: Problem, reason: str) -> None:
        """Answer with a problem, and close: this connection cannot go on."""
        self.reason = reason
        self._request = self._request and replace(self._request, closes=True)
        self._respond(of_problem(problem))

    # The clock, and the end. ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: close behind the answer to the request that is there, or that has arrived whole."""
        if self.stage is OPEN:
            self.stage = Stage.DRAINING
            self.reason = "server stops"
            self._wait.is_over = True
        self.more = True

    def give_up(self, reason: str) -> OwedCommands:
        """Answer that the server cannot do it now, and close. Return the commands without a reply."""
        unanswered = self.owed.give_up()
        if not self.gone:
            self._refuse(Problem(problems.NOT_TAKEN, "The table is not available now."), reason)
        return unanswered

    def check(self, now: float, unsent: int) -> None:
        """Close if the client is idle, slow, or has waited for too long. Call every few seconds; `unsent`: bytes that it
        has not received yet.
        """
        waited = self._waited(now)
        if self._slow.since is not None or (self.gone and unsent):
            if self._slow.is_stuck(now, unsent):
                self.abort("slow reader")
        elif self.gone:
            return
        elif self.owed:
            if waited > self._site.answer_seconds:
                text = "The server is not ready, or waits for others."
                self._refuse(Problem(problems.NOT_TAKEN, text), "no answer in time")
        elif self._reader.begun:
            if waited > BODY_SECONDS:
                self._refuse(Problem(problems.SLOW, f"A body has {BODY_SECONDS:g} seconds."), "slow request")
        elif waited > IDLE_SECONDS:
            self.abort("idle")

    def ending(self, now: float) -> Ending | None:
        """Return what to do with the connection, once, behind what `flush` returns then."""
        if not self.waits and self._slow.since is None:
            if self.stage is Stage.HALF_CLOSED:
                self._end(Stage.CLOSED, Ending.CLOSE)
            elif self.stage is Stage.DRAINING:
                if self._reader.begun or self._reader.waiting:
                    self._linger()
                else:
                    self._end(Stage.CLOSED, Ending.CLOSE)
        return super().ending(now)

    def _linger(self) -> None:
        """Close the sending half, and read on for a while: a socket that is closed with unread bytes is reset."""
        self.reads = True
        if self.stage is Stage.HALF_CLOSED:
            self._end(Stage.CLOSED, Ending.CLOSE)
        else:
            self._end(Stage.LINGERING, Ending.HALF_CLOSE)
