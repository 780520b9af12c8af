"""A WebSocket server, or clients that tell what they sent and got: a line of JSON for each connection."""

import asyncio
import json
import random
import ssl
import sys

import websockets
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

NO_LIMITS = {"compression": None, "max_size": None, "max_queue": None, "ping_interval": None}

# What the clients ask for, each in a connection of its own; None asks for no compression.
DEFLATE = [
    None,
    {"client_max_window_bits": True},
    {"server_max_window_bits": 9, "client_max_window_bits": 9},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    {"server_no_context_takeover": True, "client_max_window_bits": 11},
    {"client_no_context_takeover": True, "server_max_window_bits": 12},
]

EXCHANGES = 60
LARGE = [70_000, 3_000_000]


def parts_of(message, count):
    size = len(message) // count + 1
    return [message[at : at + size] for at in range(0, len(message), size)]


def filler(dice, size):
    """Words that can be compressed, not all of them ASCII."""
    word = "".join(dice.choice("abcdefghij é€") for _ in range(200))
    return (word * (size // 200 + 1))[:size]


def wire_bytes(message):
    return len(message.encode() if isinstance(message, str) else message)


async def handle(socket):
    held = []
    async for message in socket:
        if isinstance(message, bytes):
            await socket.send(message)
            continue
        asked = json.loads(message)
        for _ in range(asked["pings"]):
            await (await socket.ping())
        for number in range(asked["pushes"]):
            await socket.send(json.dumps({"channel": "ticks", "data": number}))
        answer = json.dumps({"id": asked["id"], "result": asked["filler"]}, ensure_ascii=False)
        held.append(parts_of(answer, asked["parts"]) if asked["parts"] > 1 else answer)
        # What was held back is answered after what came later.
        while held and not asked["hold"]:
            await socket.send(held.pop())


async def serve(host, certificate=None, key=None):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    options = {"extensions": [ServerPerMessageDeflateFactory()], "ssl": context} | NO_LIMITS
    async with websockets.serve(handle, host, 0, **options) as server:
        print("listening", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


class Client:
    def __init__(self, socket, seed):
        self.socket = socket
        self.dice = random.Random(seed)
        self.asked = {}
        self.calls = []
        self.pushes = 0
        self.sent = self.nothing()
        self.received = self.nothing()

    @staticmethod
    def nothing():
        return {"text": 0, "binary": 0, "payload": 0, "pings": 0, "pongs": 0, "continuations": 0}

    @staticmethod
    def count(side, message):
        side["text" if isinstance(message, str) else "binary"] += 1
        side["payload"] += wire_bytes(message)

    async def send(self, message, parts):
        self.count(self.sent, message)
        if parts == 1:
            return await self.socket.send(message)
        pieces = parts_of(message, parts)
        # An empty frame ends them.
        self.sent["continuations"] += len(pieces)
        await self.socket.send(pieces)

    async def receive(self):
        message = await self.socket.recv()
        self.count(self.received, message)
        if isinstance(message, bytes):
            return
        told = json.loads(message)
        if "channel" in told:
            self.pushes += 1
            return await self.receive()
        method, asked, parts = self.asked.pop(told["id"])
        self.calls.append([method, asked, wire_bytes(message)])
        if parts > 1:
            self.received["continuations"] += len(parts_of(message, parts))

    async def ask(self, number, size, hold=False):
        parts = self.dice.choice([1, 1, 2, 7])
        pings, pushes = self.dice.choice([0, 0, 1, 2]), self.dice.randrange(5)
        asked = {"id": number, "method": f"m{number}", "hold": hold, "parts": parts}
        asked |= {"pings": pings, "pushes": pushes, "filler": filler(self.dice, size)}
        message = json.dumps(asked, ensure_ascii=False)
        self.asked[number] = (asked["method"], wire_bytes(message), parts)
        self.received["pings"] += pings
        self.sent["pongs"] += pings
        await self.send(message, parts)

    async def ping(self):
        await (await self.socket.ping(b"are you there"))
        self.sent["pings"] += 1
        self.received["pongs"] += 1

    async def bytes(self, size):
        message = self.dice.randbytes(size)
        self.calls.append(["BINARY", size, None])
        await self.send(message, self.dice.choice([1, 3]) if size > 3 else 1)
        await self.receive()

    async def talk(self):
        for number in range(EXCHANGES):
            await self.ask(number, self.dice.randrange(400))
            await self.receive()
            if number % 10 == 0:
                await self.ping()
        for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000]:
            await self.bytes(size)
        for number, size in enumerate(LARGE, 1000):
            await self.ask(number, size)
            await self.receive()
        for number in range(2000, 2010):
            await self.ask(number, 50, hold=number < 2009)
        for _ in range(10):
            await self.receive()
        assert not self.asked

    def report(self, address, extensions):
        deflate = None
        for it in extensions:
            deflate = {
                "client_no_context_takeover": it.local_no_context_takeover,
                "server_no_context_takeover": it.remote_no_context_takeover,
                "client_max_window_bits": it.local_max_window_bits,
                "server_max_window_bits": it.remote_max_window_bits,
            }
        return {
            "client": "%s:%d" % address[:2],
            "calls": self.calls,
            "pushes": self.pushes,
            "sent": self.sent,
            "received": self.received,
            "deflate": deflate,
        }


async def connect(host, port, scheme):
    context = None
    if scheme == "wss":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for seed, deflate in enumerate(DEFLATE):
        extensions = [ClientPerMessageDeflateFactory(**deflate)] if deflate else None
        options = {"extensions": extensions, "ssl": context} | NO_LIMITS
        async with websockets.connect(f"{scheme}://{host}:{port}/ws", **options) as socket:
            client = Client(socket, seed)
            await client.talk()
            agreed = getattr(socket, "protocol", socket).extensions
            report = client.report(socket.local_address, agreed)
        print(json.dumps(report), flush=True)


async def stay(host, port):
    """A connection in use; the rest, of which alone it tells, once told to."""
    async with websockets.connect(f"ws://{host}:{port}/ws", **NO_LIMITS) as socket:
        await Client(socket, 0).ask(0, 10)
        while "id" not in json.loads(await socket.recv()):
            pass
        print("open", flush=True)
        sys.stdin.readline()
        client = Client(socket, 1)
        await client.talk()
        report = client.report(socket.local_address, [])
    print(json.dumps(report), flush=True)


if sys.argv[1] == "serve":
    asyncio.run(serve(*sys.argv[2:]))
elif sys.argv[1] == "stay":
    asyncio.run(stay(*sys.argv[2:]))
else:
    asyncio.run(connect(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
