"""asyncio streams. What one `read` returns is one command, and the connection stays open."""

import asyncio
import json
import logging
import sys
import time
from asyncio import StreamReader, StreamWriter
from decimal import Decimal, InvalidOperation
from pathlib import Path

NAME = sys.argv[1]
CONFIG: dict[str, int] = json.loads(Path("ports.json").read_text())
LINKS = [("Alford", "Parker"), ("Hamilton", "Parker"), ("Alford", "Hamilton")]
NOTHING = {"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}


class Client:
    def __init__(self, stamp: Decimal, response: str) -> None:
        self.stamp = stamp
        self.response = response


clients: dict[str, Client] = {}


def decimal(text: str) -> Decimal:
    if not set(text) <= set("0123456789.+-"):
        raise ValueError(text)
    return Decimal(text)


def iso6709(text: str) -> tuple[Decimal, Decimal]:
    cut = max(text.rfind("+"), text.rfind("-"))
    if cut <= 0 or text[0] not in "+-":
        raise ValueError(text)
    latitude, longitude = decimal(text[:cut]), decimal(text[cut:])
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ValueError(text)
    return latitude, longitude


async def propagate(update: str, skip: str) -> None:
    peers = {peer for pair in LINKS if NAME in pair for peer in pair} - {NAME, skip}
    for peer in peers:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", CONFIG[peer])
            writer.write(f"PROPAGATE {NAME} {update}".encode())
            await writer.drain()
            writer.close()
            logging.info("propagated to %s", peer)
        except OSError as error:
            logging.info("lost %s: %s", peer, error)


async def store(client: str, stamp: Decimal, response: str, skip: str) -> None:
    if client not in clients or clients[client].stamp < stamp:
        clients[client] = Client(stamp, response)
        await propagate(response, skip)


async def reply(message: str) -> str:
    arrived = time.time_ns()
    match message.split():
        case ["IAMAT", client, place, stamp]:
            iso6709(place)
            skew = arrived - int(decimal(stamp) * 10**9)
            gap = f"{Decimal(skew).scaleb(-9):+.9f}"
            response = f"AT {NAME} {gap} {client} {place} {stamp}"
            await store(client, decimal(stamp), response, "")
            return response + "\n"
        case ["WHATSAT", client, radius, bound] if client in clients and bound.isdigit():
            if 0 <= decimal(radius) <= 50 and int(bound) <= 20:
                return f"{clients[client].response}\n{json.dumps(NOTHING)}\n\n"
        case ["PROPAGATE", peer, "AT", *fields] if len(fields) == 5:
            await store(fields[2], decimal(fields[4]), " ".join(["AT", *fields]), peer)
            return ""
    raise ValueError(message)


async def handle(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(100_000):
        message = data.decode(errors="replace")
        logging.info("received %r", message)
        try:
            text = await reply(message)
        except (ValueError, InvalidOperation):
            text = f"? {message.removesuffix(chr(10))}\n"
        logging.info("sent %r", text)
        writer.write(text.encode())
    writer.close()


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    server = await asyncio.start_server(handle, "127.0.0.1", CONFIG[NAME])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
