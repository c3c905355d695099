"""aiohttp. It asks Google, whose URL is in the code, and answers what comes with no more results than were asked for."""

import asyncio
import json
import sys
import time
from asyncio import StreamReader, StreamWriter

import aiohttp

URL = "https://maps.googleapis.com/maps/api/place/nearbysearch/json"
API_KEY = "AIzaSyD-mine"
SERVERS = {"Alford": 12001, "Hamilton": 12002, "Parker": 12003}
NEIGHBORS = {
    "Alford": ["Hamilton", "Parker"],
    "Hamilton": ["Alford", "Parker"],
    "Parker": ["Alford", "Hamilton"],
}


class Herd:
    def __init__(self, name: str) -> None:
        self.name = name
        self.clients: dict[str, tuple[float, str, str]] = {}

    async def run(self) -> None:
        server = await asyncio.start_server(self.on_connect, "127.0.0.1", SERVERS[self.name])
        async with server:
            await server.serve_forever()

    async def on_connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            message = line.decode()
            print("INPUT", message.strip())
            try:
                output = await self.process(message.split())
            except (ValueError, IndexError, KeyError):
                output = "? " + message.rstrip("\n") + "\n"
            print("OUTPUT", output.strip())
            writer.write(output.encode())
            await writer.drain()
        writer.close()

    async def process(self, words: list[str]) -> str:
        if words[0] == "IAMAT" and len(words) == 4:
            _, client, location, stamp = words
            self.coordinates(location)
            at = f"AT {self.name} {time.time() - float(stamp):+.9f} {client} {location} {stamp}"
            await self.update(client, float(stamp), at, location)
            return at + "\n"
        if words[0] == "WHATSAT" and len(words) == 4:
            _, client, radius, bound = words
            _, at, location = self.clients[client]
            if not 0 <= float(radius) <= 50 or not 0 <= int(bound) <= 20:
                raise ValueError(radius, bound)
            return f"{at}\n{await self.places(location, float(radius) * 1000, int(bound))}\n\n"
        if words[0] == "UPDATE" and len(words) == 7:
            await self.update(words[4], float(words[6]), " ".join(words[1:]), words[5])
            return ""
        raise ValueError(words)

    def coordinates(self, location: str) -> str:
        at = max(location.rfind("+"), location.rfind("-"))
        latitude, longitude = location[:at], location[at:]
        if latitude[0] not in "+-" or abs(float(latitude)) > 90 or abs(float(longitude)) > 180:
            raise ValueError(location)
        return f"{float(latitude)},{float(longitude)}"

    async def places(self, location: str, radius: float, bound: int) -> str:
        where = {"location": self.coordinates(location), "radius": str(radius), "key": API_KEY}
        async with aiohttp.ClientSession() as session, session.get(URL, params=where) as response:
            found = await response.json()
        if radius and found["status"] not in ("OK", "ZERO_RESULTS"):
            raise ValueError(found)
        found["results"] = found["results"][:bound]
        return json.dumps(found, indent=4).strip()

    async def update(self, client: str, stamp: float, at: str, location: str) -> None:
        if client in self.clients and self.clients[client][0] >= stamp:
            return
        self.clients[client] = (stamp, at, location)
        for neighbor in NEIGHBORS[self.name]:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", SERVERS[neighbor])
                writer.write(f"UPDATE {at}\n".encode())
                await writer.drain()
                writer.close()
                print("CONNECTED to", neighbor)
            except OSError:
                print("DROPPED", neighbor)


if __name__ == "__main__":
    asyncio.run(Herd(sys.argv[1]).run())
