"""`places`: what is near a point, asked of the configured provider and of no server."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import click
import msgspec

from proxyherd.base.escapes import escaped, visible_json
from proxyherd.cli.common import Failure, config_option, default_gazetteer, examples, load_herd
from proxyherd.cli.pipes import while_read
from proxyherd.core.messages import Whatsat, metres, parse_question, parse_report
from proxyherd.places import CHOICES, Answer, NoBudget, Places, Query, find_key, no_results, open_places
from proxyherd.places.limits.breaker import BreakerState
from proxyherd.places.watch import CallOutcome, Spared


class _Bill:
    """Counts what one query cost."""

    def __init__(self) -> None:
        self.calls = 0
        self.dollars = 0.0

    def count_call(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        del provider, outcome, seconds
        self.calls += 1
        self.dollars += dollars

    def count_spared(self, why: Spared) -> None:
        del why

    def note_breaker(self, state: BreakerState) -> None:
        del state


@click.command(
    context_settings={"ignore_unknown_options": True},  # a latitude may begin with a minus sign
    short_help="Ask for places without a server: does the key work?",
    epilog=examples(
        "proxyherd places 34.068930,-118.445127 10",
        "proxyherd places -33.856784,151.215297 0.5 --limit 5",
        "proxyherd places 48.8566,2.3522 50 --json | jq '.results[].name'",
    ),
)
@click.argument("point", metavar="LAT,LNG")
@click.argument("radius")
@click.option(
    "--limit", "most", type=click.IntRange(0, 20), default=20, show_default=True, help="Results at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer's JSON; the rest goes to stderr.")
@click.option(
    "--gazetteer",
    type=click.Path(path_type=Path),
    help="The offline places.  [default: $PROXYHERD_GAZETTEER, else var/gazetteer.dat]",
)
@config_option()
@click.pass_context
def places(
    ctx: click.Context, point: str, radius: str, most: int, gazetteer: Path | None, *, as_json: bool
) -> None:
    """Ask the configured provider what is within RADIUS km of LAT,LNG, and say which provider it was, what became
    of it, how long it took and what it cost.

    No server takes part. Google is called once, or once with each of its APIs; the herd's budget, of which every
    server has its share, knows nothing of it.

    Exit codes: 0 answered; 1 the provider failed or refused; 2 bad usage or configuration.
    """
    question = _question(radius, most)
    query = _query(point, question)
    bill = _Bill()
    asked = _open(ctx, bill, gazetteer or default_gazetteer())
    began = time.monotonic()
    answer = asyncio.run(_ask(asked, query)) if question.asks_places else no_results("ZERO_RESULTS")
    seconds = time.monotonic() - began
    with while_read():
        if as_json:
            click.echo(visible_json(answer.body))
        else:
            _print(answer)
        click.echo(
            f"{asked.name}: {answer.status}, {answer.results} results, {seconds:.3f} s, {bill.calls} calls, "
            f"about {bill.dollars:.3f} US dollars",
            err=as_json,
        )
    ctx.exit(0 if answer.status in {"OK", "ZERO_RESULTS"} else Failure.exit_code)


def _question(radius: str, most: int) -> Whatsat:
    """Parse a radius by the rules of the client protocol, which also apply to clients' commands."""
    question = parse_question(os.fsencode(f"WHATSAT here {radius} {most}"))
    if question is None:
        raise click.BadParameter(f"{radius!r} is no number of kilometres from 0 to 50", param_hint="RADIUS")
    return question


def _query(point: str, question: Whatsat) -> Query:
    """Parse a point by the same rules."""
    signed = [part if part[:1] in {"+", "-"} else f"+{part}" for part in map(str.strip, point.split(","))]
    line = os.fsencode(f"IAMAT here {''.join(signed)} 0")
    if len(signed) != 2 or parse_report(line, b"", 0) is None:
        raise click.BadParameter(
            f"{point!r} is not two decimal degrees, such as 34.068930,-118.445127", param_hint="LAT,LNG"
        )
    return Query(signed[0], signed[1], metres(question.radius), question.most)


def _open(ctx: click.Context, bill: _Bill, gazetteer: Path) -> Places:
    herd = load_herd(ctx)
    needs_key = CHOICES[herd.places.provider].needs_key
    key = find_key(herd.places, herd.file, os.environ) if needs_key else None
    once = msgspec.structs.replace(herd.places, attempts=1, attempt_seconds=herd.places.deadline_seconds)
    return open_places(once, herd.limits, bill, key=key, gazetteer=gazetteer, budget=NoBudget())


async def _ask(places: Places, query: Query) -> Answer:
    try:
        return await places.nearby(query)
    finally:
        await places.close()


def _print(answer: Answer) -> None:
    document = json.loads(answer.body)
    for result in document["results"]:
        vicinity = escaped(str(result.get("vicinity") or ""))
        click.echo(f"  {escaped(str(result.get('name')))}" + (f"  ({vicinity})" if vicinity else ""))
    if message := document.get("error_message"):
        click.echo(escaped(str(message)), err=True)
