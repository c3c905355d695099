"""asyncio streams. It reads until the client half-closes, answers then, and closes; AT goes to the client ports."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from asyncio import StreamReader, StreamWriter
from pathlib import Path

PORTS = json.loads(Path("ports.json").read_text())
FRIENDS = {
    "Alford": ["Parker", "Hamilton"],
    "Hamilton": ["Parker", "Alford"],
    "Parker": ["Alford", "Hamilton"],
}
JSON = '{"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}'
ME = sys.argv[1]
last: dict[str, tuple[float, str]] = {}


async def flood(message: str, source: str = "") -> None:
    for friend in FRIENDS[ME]:
        if friend == source:
            continue
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORTS[friend])
        except OSError:
            print("cannot reach", friend)
            continue
        writer.write(f"{message} {ME}\n".encode())
        writer.write_eof()
        await writer.drain()
        writer.close()
        print("connected to", friend)
        print("sent", message)


def where(text: str) -> bool:
    match = re.fullmatch(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)", text)
    return bool(match) and abs(float(match[1])) <= 90 and abs(float(match[2])) <= 180


def number(text: str, pattern: str = r"\d+(\.\d+)?") -> float:
    return float(text) if re.fullmatch(pattern, text) else -1.0


async def answer(line: str) -> str:
    now = time.time_ns()
    words = line.split()
    if len(words) == 4 and words[0] == "IAMAT" and where(words[2]) and number(words[3]) >= 0:
        whole, _, rest = words[3].partition(".")
        sent = int(whole) * 10**9 + int(rest.ljust(9, "0")[:9])
        sign = "-" if now < sent else "+"
        gap = f"{sign}{abs(now - sent) // 10**9}.{abs(now - sent) % 10**9:09d}"
        at = f"AT {ME} {gap} {words[1]} {words[2]} {words[3]}"
        if words[1] not in last or last[words[1]][0] < float(words[3]):
            last[words[1]] = (float(words[3]), at)
            await flood(at)
        return at + "\n"
    if len(words) == 4 and words[0] == "WHATSAT" and words[1] in last:
        if 0 <= number(words[2]) <= 50 and 0 <= number(words[3], r"\d+") <= 20:
            return f"{last[words[1]][1]}\n{JSON}\n\n"
    if len(words) == 7 and words[0] == "AT":
        if words[3] not in last or last[words[3]][0] < float(words[5]):
            at = " ".join(words[:6])
            last[words[3]] = (float(words[5]), at)
            await flood(at, words[6])
        return ""
    return "? " + line.removesuffix("\n") + "\n"


async def talk(reader: StreamReader, writer: StreamWriter) -> None:
    line = (await reader.read()).decode()
    print("received", line)
    said = await answer(line)
    print("answered", said)
    writer.write(said.encode())
    writer.close()


async def main() -> None:
    async with await asyncio.start_server(talk, "127.0.0.1", PORTS[ME]) as server:
        await server.serve_forever()


asyncio.run(main())
