"""Shows that the asyncio client of `websockets` subscribes, publishes, pings and closes.

    tests/suites/clients/run asyncio
"""

import asyncio
import json
import sys

import cases
from cases import expect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ADDRESS = sys.argv[1]


async def main():
    async with asyncio.timeout(cases.DEADLINE_SECONDS * 3):
        async with open_("deflate") as subscriber, open_(None) as plain, open_("deflate") as bystander:
            await subscribe(subscriber, cases.page("2", "5"), cases.marker_subscription())
            await subscribe(plain, cases.marker_subscription(), cases.page("2"))
            # A list replaces the one before: this one is subscribed no longer.
            await subscribe(bystander, cases.page("2"))
            await subscribe(bystander, cases.page("3"), cases.marker_subscription())
            for name, way in {
                "whole": whole,
                "without offering compression": uncompressed,
                "in fragments": fragmented,
                "after a ping": after_ping,
                "on /publish": worker,
            }.items():
                notification = cases.notification(f"asyncio {name}")
                await deliver(name, way, notification, [subscriber, plain], bystander)
            await deliver("large", whole, cases.large_notification(), [subscriber, plain], bystander)
            await pings(subscriber)
            await subscriber.close()
            expect("the answer to a Close", subscriber.close_code, 1000)


def open_(compression, path="/"):
    return connect(f"ws://{ADDRESS}{path}", compression=compression, proxy=None)


async def subscribe(connection, *subscriptions):
    expect("extensions", connection.response.headers.get("Sec-WebSocket-Extensions"), None)
    await connection.send(cases.subscribe(*subscriptions))
    answer = json.loads(await connection.recv())
    expect("subscribed", (answer["type"], answer["subscriptions"]), ("subscribed", len(subscriptions)))


async def deliver(name, way, notification, subscribers, bystander):
    await way(cases.publish(notification), len(subscribers))
    await whole(cases.PUBLISH_MARKER, len(subscribers) + 1)
    for subscriber in subscribers:
        expect(f"{name}: subscriber", await subscriber.recv(), cases.delivered(notification))
        expect(f"{name}: subscriber, then", await subscriber.recv(), cases.DELIVERED_MARKER)
    expect(f"{name}: bystander", await bystander.recv(), cases.DELIVERED_MARKER)
    print(f"asyncio: published {name}")


async def whole(message, count, compression="deflate"):
    async with open_(compression) as publisher:
        await publisher.send(message)
        await closed(publisher, count)


async def uncompressed(message, count):
    await whole(message, count, None)


async def fragmented(message, count):
    async with open_("deflate") as publisher:
        await publisher.send(cases.fragments(message), text=True)
        await closed(publisher, count)


async def after_ping(message, count):
    async with open_("deflate") as publisher:
        await (await publisher.ping(b"\x00 any bytes \xff"))
        await publisher.send(message)
        await closed(publisher, count)


async def worker(message, count):
    async with open_("deflate", "/publish?worker=1") as publisher:
        await publisher.send(message)
        answer = json.loads(cases.without_ids(await publisher.recv()))
        expect("answer", answer, {"type": "published", "delivered": count})


async def closed(publisher, count):
    try:
        expect("a publisher's answer", await publisher.recv(), "a Close")
    except ConnectionClosed:
        expect("Close", (publisher.close_code, cases.without_ids(publisher.close_reason)), (1000, cases.taken(count)))


async def pings(connection):
    for payload in (b"", b"x" * 125):
        await (await connection.ping(payload))
    await connection.send('{"type":"ping"}')
    expect("pong", json.loads(await connection.recv()), {"type": "pong"})
    print("asyncio: pings are answered")


asyncio.run(main())
