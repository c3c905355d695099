"""asyncio streams. One line a connection; the answer has no LF at its end, and the server closes behind it."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

ports = json.loads(Path("ports.json").read_text())
names = {"Alford", "Hamilton", "Parker"}
places = json.dumps({"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}, indent=3)


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self.times: dict[str, int] = {}
        self.lines: dict[str, str] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self.handle, "127.0.0.1", ports[self.name])
        await server.serve_forever()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode("latin-1").rstrip("\n")
        print("<-", line)
        words: list[Any] = line.split()
        known = {"IAMAT": self.iamat, "WHATSAT": self.whatsat, "FLOOD-7f3a": self.flood}
        answer = None
        if words and words[0] in known:
            answer = await known[words[0]](*words[1:]) if len(words) in (4, 8) else None
        if answer is None:
            answer = f"? {line}"
        print("->", answer)
        writer.write(answer.encode("latin-1"))
        await writer.drain()
        writer.close()

    async def iamat(self, client: str, place: str, when: str, *more: str) -> str | None:
        now = time.time_ns()
        found = re.fullmatch(r"([+-][0-9]{1,2}(?:\.[0-9]+)?)([+-][0-9]{1,3}(?:\.[0-9]+)?)", place)
        if more or not found or not re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?", when):
            return None
        if abs(float(found[1])) > 90 or abs(float(found[2])) > 180:
            return None
        stamp = self.stamp(when)
        gap = now - stamp
        text = f"{'-' if gap < 0 else '+'}{abs(gap) // 10**9}.{abs(gap) % 10**9:09}"
        line = f"AT {self.name} {text} {client} {place} {when}"
        await self.learn(client, stamp, line, "")
        return line

    def stamp(self, when: str) -> int:
        whole, _, part = when.partition(".")
        return int(whole + f"{part:0<9}")

    async def learn(self, client: str, stamp: int, line: str, source: str) -> None:
        if stamp > self.times.get(client, -1):
            self.times[client], self.lines[client] = stamp, line
            for other in names - {self.name, source}:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", ports[other])
                    writer.write(f"FLOOD-7f3a {self.name} {line}\n".encode("latin-1"))
                    writer.close()
                    print("connected to", other)
                except OSError as error:
                    print(other, "is down:", error)

    async def flood(self, source: str, *line: str) -> str:
        await self.learn(line[3], self.stamp(line[5]), " ".join(line), source)
        return ""

    async def whatsat(self, client: str, radius: str, bound: str, *more: str) -> str | None:
        if more or client not in self.lines or not bound.isdigit() or int(bound) > 20:
            return None
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", radius) or float(radius) > 50:
            return None
        return f"{self.lines[client]}\n{places}\n\n"


asyncio.run(Server(sys.argv[1]).serve())
