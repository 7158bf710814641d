#!/usr/bin/env python3
"""The web application behind Pushpin: a WebSocket at /sub/CHANNEL is subscribed to CHANNEL.

    benches/services/pushpin/origin.py HOST:PORT

Speaks WebSocket-over-HTTP, as much as subscribers need: it accepts a connection and subscribes it,
answers a Ping, and agrees to a Close. Python 3.11, standard library only.
"""

import asyncio
import sys


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            channel = head.split(b" ", 2)[1].rpartition(b"/")[2]
            fields = [line.partition(b":") for line in head.split(b"\r\n")]
            length = next((int(value) for name, _, value in fields if name.lower() == b"content-length"), 0)
            accepted, events = answer(await reader.readexactly(length), channel)
            # Without it messages to subscribers would come with a prefix, and no control message would be one.
            grip = b'Sec-WebSocket-Extensions: grip; message-prefix=""\r\n' if accepted else b""
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n%sContent-Length: %d\r\n\r\n%s"
                % (grip, len(events), events)
            )
    except asyncio.IncompleteReadError:
        writer.close()


def answer(events, channel):
    """Whether these events open a connection, and the events that answer them."""
    accepted, answers = False, []
    while events:
        line, _, events = events.partition(b"\r\n")
        kind, _, length = line.partition(b" ")
        content, events = (events[: int(length, 16)], events[int(length, 16) + 2 :]) if length else (b"", events)
        if kind == b"OPEN":
            accepted = True
            subscribe = b'c:{"type":"subscribe","channel":"%s"}' % channel
            answers.append(b"OPEN\r\nTEXT %x\r\n%s\r\n" % (len(subscribe), subscribe))
        elif kind == b"PING":
            answers.append(b"PONG %x\r\n%s\r\n" % (len(content), content))
        elif kind == b"CLOSE":
            answers.append(b"CLOSE %x\r\n%s\r\n" % (len(content), content))
    return accepted, b"".join(answers)


async def main():
    host, _, port = sys.argv[1].partition(":")
    server = await asyncio.start_server(serve, host, int(port), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
