#!/usr/bin/env python3
"""A node on a stream of Redis, as small as the tests need it: channels, ids, publishers on WebSockets. Does wrong on demand.

    node.py ADDRESS REDIS [--reuse-port] [FAULT]

All nodes are started alike; where one of several is to do wrong it is the second that asks Redis for its number.
"""

import asyncio
import base64
import hashlib
import json
import socket
import sys

FAULT_AT = 100
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Redis:
    """A connection, one command at a time."""

    async def open(self, url):
        path = url.removeprefix("redis+unix://")
        self.reader, self.writer = await asyncio.open_unix_connection(path, limit=1 << 26)
        return self

    async def call(self, *words):
        words = [str(word).encode() for word in words]
        pieces = [b"*%d\r\n" % len(words)]
        pieces += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.writer.write(b"".join(pieces))
        return await self.reply()

    async def reply(self):
        line = (await self.reader.readline())[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"*":
            return [await self.reply() for _ in range(max(int(rest), 0))]
        if kind == b"$":
            return (await self.reader.readexactly(int(rest) + 2))[:-2].decode()
        assert kind != b"-", line
        return rest.decode()


def frame(opcode, payload):
    size = len(payload)
    head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    assert size < 1 << 16
    return bytes([0x80 | opcode]) + head + payload


def text(fields, notification=None):
    body = json.dumps(fields, separators=(",", ":"))
    if notification is not None:
        body = body[:-1] + f',"notification":{notification}}}'
    return frame(1, body.encode())


class Node:
    def __init__(self, fault):
        self.fault = fault
        self.members = {}  # writer: (channels, whether it is numbered)
        self.owed = {}  # nonce: how to answer it
        self.nonce = 0
        self.count = 0
        self.head = "0-0-" + 16 * "0"
        self.held = None

    async def serve(self, address, url, reuse_port):
        self.publishing = await Redis().open(url)
        self.lock = asyncio.Lock()
        self.number = int(await self.publishing.call("INCR", "nodes"))
        reading = asyncio.create_task(self.read(await Redis().open(url)))
        host, port = address.split(":")
        server = await asyncio.start_server(self.accept, host, port, reuse_port=reuse_port, backlog=1024)
        async with server:
            await reading

    async def read(self, redis):
        last = "0-0"
        while True:
            for _, entries in await redis.call("XREAD", "BLOCK", 1000, "STREAMS", "s", last):
                for last, fields in entries:
                    self.take(last, dict(zip(fields[::2], fields[1::2])))

    def take(self, place, fields):
        self.count += 1
        self.head = f"{place}-{int(fields['t']):016x}"
        if self.fault == "own":
            self.head = f"0123456789abcdef-{self.count}"
        if self.fault == "descend" and self.count == FAULT_AT:
            self.head = f"1-0-{int(fields['t']):016x}"
        entries = [(self.head, fields)]
        if self.number == 2 and self.count == FAULT_AT:
            entries = {"lose": [], "double": 2 * entries}.get(self.fault, entries)
            if self.fault == "swap":
                self.held, entries = entries[0], []
        elif self.held:
            entries, self.held = [*entries, self.held], None
        for entry in entries:
            self.deliver(*entry)
        # Publishers are told the truth, in their order.
        if answer := self.owed.pop(fields["t"], None):
            delivered = sum(1 for _ in self.recipients(fields)) + (self.fault == "altogether")
            answer({"delivered": delivered, "id": self.head})

    def recipients(self, fields):
        channel = json.loads(fields["n"])["channel"]
        for writer, (channels, is_numbered) in self.members.items():
            if channel in channels:
                yield writer, is_numbered

    def deliver(self, id_, fields):
        for writer, is_numbered in self.recipients(fields):
            named = {"id": id_} if is_numbered else {}
            writer.write(text({"type": "notification", **named}, fields["n"]))

    async def accept(self, reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.members.pop(writer, None)
        writer.close()

    async def talk(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key.split(b":")[1].strip() + GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        stays = head.startswith(b"GET /publish ")
        while True:
            opcode, size = await reader.readexactly(2)
            size &= 0x7F
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(size)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked)).decode("latin-1")
            if opcode & 0x0F == 8:
                return
            await self.handle(json.loads(payload), payload, writer, stays)

    async def handle(self, message, payload, writer, stays):
        if message.get("type") == "ping":
            named = {"id": self.head} if self.members[writer][1] else {}
            writer.write(text({"type": "pong", **named}))
        elif message["sender"] == "client":
            channels, is_numbered = set(message["subscriptions"]), "since" in message
            self.members[writer] = channels, is_numbered
            named = {"id": self.head} if is_numbered else {}
            writer.write(text({"type": "subscribed", "subscriptions": len(channels), **named}))
        else:

            def answer(receipt):
                if stays:
                    writer.write(text({"type": "published", **receipt}))
                else:
                    reason = json.dumps(receipt, separators=(",", ":")).encode()
                    writer.write(frame(8, b"\x03\xe8" + reason))

            _, _, notification = payload.partition('"notification":')
            async with self.lock:
                self.nonce += 1
                nonce = str(self.number * 10**9 + self.nonce)
                self.owed[nonce] = answer
                await self.publishing.call("XADD", "s", "*", "n", notification[:-1], "t", nonce)


def main():
    address, url, *words = sys.argv[1:]
    reuse_port = "--reuse-port" in words
    faults = [word for word in words if not word.startswith("--")]
    asyncio.run(Node(faults[0] if faults else "").serve(address, url, reuse_port))


if __name__ == "__main__":
    main()
