"""asyncio streams. Both coordinates need a decimal point; links between servers stay open."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

HERD: dict[str, int] = json.loads(Path("ports.json").read_text())
DIALS = {"Hamilton": ["Parker", "Alford"], "Alford": ["Parker"], "Parker": []}
ID = sys.argv[1]
EMPTY = '{"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}'
links: list[asyncio.StreamWriter] = []
reports: dict[str, str] = {}


def is_coordinate(text: str, limit: int) -> bool:
    degrees, point, fraction = text[1:].partition(".")
    digits = degrees.isascii() and degrees.isdigit() and fraction.isascii() and fraction.isdigit()
    return text[0] in "+-" and bool(point) and digits and abs(float(text)) <= limit


def is_place(text: str) -> bool:
    at = max(text.rfind("+", 1), text.rfind("-", 1))
    return at > 1 and is_coordinate(text[:at], 90) and is_coordinate(text[at:], 180)


def nanoseconds(text: str) -> int:
    seconds, _, rest = text.partition(".")
    return int(seconds) * 1_000_000_000 + int((rest + "000000000")[:9])


def is_number(text: str, dots: int) -> bool:
    return text.isascii() and text.replace(".", "", dots).isdigit() and text[0] != "."


def remember(at: str) -> bool:
    words = at.split()
    held = reports.get(words[3])
    if held is not None and nanoseconds(held.split()[5]) >= nanoseconds(words[5]):
        return False
    reports[words[3]] = at
    for link in links:
        link.write(at.encode() + b"\n")
    return True


def answer(line: str) -> str:
    now = time.time_ns()
    words = line.split()
    if len(words) == 4:
        command, client, second, third = words
        if command == "IAMAT" and is_place(second) and is_number(third, 1):
            late = now - nanoseconds(third)
            seconds, rest = divmod(abs(late), 1_000_000_000)
            at = f"AT {ID} {'+' if late >= 0 else '-'}{seconds}.{rest:09d} {client} {second} {third}"
            remember(at)
            return at
        if command == "WHATSAT" and client in reports and is_number(second, 1) and is_number(third, 0):
            if float(second) <= 50 and int(third) <= 20:
                return f"{reports[client]}\n{EMPTY}\n"
    return f"? {line}"


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for raw in reader:
        line = raw.decode("utf-8", "surrogateescape").removesuffix("\n")
        print("got", repr(line))
        if line == "I am your neighbour, 94720":
            await link(reader, writer)
            return
        said = answer(line)
        print("said", repr(said))
        writer.write(said.encode("utf-8", "surrogateescape") + b"\n")
    writer.close()


async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for at in reports.values():
        writer.write(at.encode() + b"\n")
    links.append(writer)
    print("linked")
    try:
        async for raw in reader:
            remember(raw.decode().rstrip("\n"))
    except OSError:
        pass
    print("link lost")
    links.remove(writer)
    writer.close()


async def dial(other: str) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", HERD[other])
            writer.write(b"I am your neighbour, 94720\n")
            await link(reader, writer)
        except OSError:
            pass
        await asyncio.sleep(0.2)


async def main() -> None:
    await asyncio.start_server(converse, "127.0.0.1", HERD[ID])
    await asyncio.gather(asyncio.sleep(10**6), *map(dial, DIALS[ID]))


asyncio.run(main())
