"""A client that comes through a proxy, with PyPI's `websockets`; what it is to see comes as JSON."""

import asyncio
import http.client
import json
import os
import signal
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
from receipts import without_ids  # noqa: E402

PLAN = json.loads(sys.argv[1])
URL = PLAN["url"]
TLS = ssl.create_default_context(cafile=PLAN["authority"])
SECONDS_MAX = 20
COUNT = 500


def client(**more):
    # It has pings of its own, which would keep the connection busy.
    return connect(
        URL, ssl=TLS, host="127.0.0.1", local_addr=(PLAN["client"], 0), ping_interval=None, compression=None,
        additional_headers={"X-Forwarded-For": PLAN["claimed"]}, **more,
    )


async def text(socket):
    return await asyncio.wait_for(socket.recv(), SECONDS_MAX)


async def subscribe(socket):
    await socket.send('{"sender":"client","subscriptions":["c"]}')
    assert json.loads(await text(socket))["type"] == "subscribed"


def notification(number, size=0):
    # Nothing re-serialises it on the way.
    return f'{{"channel" : "c","number":{number}.0,"text":"\\u00e9{"x" * size}"}}'


async def publish(port, notifications):
    async with connect(f"ws://127.0.0.1:{port}/publish", compression=None) as publisher:
        for each in notifications:
            await publisher.send(f'{{"sender":"server","notification":{each}}}')
        for _ in notifications:
            answer = json.loads(without_ids(await text(publisher)))
            assert answer == {"type": "published", "delivered": 1}, answer


async def visits(publish_port):
    async with client() as socket:
        await subscribe(socket)
        assert await refused("https://foreign.example") == 403
        await asyncio.to_thread(posts_nothing)
        await publishes_nothing()
        # Nobody says anything for longer than the proxy would wait.
        try:
            said = await asyncio.wait_for(socket.recv(), PLAN["silence"])
            raise AssertionError(said)
        except TimeoutError:
            pass
        sent = [notification(number) for number in range(COUNT)] + [notification(COUNT, 300_000)]
        await publish(publish_port, sent)
        for each in sent:
            assert await text(socket) == f'{{"type":"notification","notification":{each}}}'
    # A page of the proxy's own host.
    host = urlsplit(URL).netloc
    async with client(origin=f"https://{host}") as socket:
        await socket.send('{"type":"ping"}')
        assert await text(socket) == '{"type":"pong"}'


async def refused(origin):
    try:
        async with client(origin=origin):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def posts_nothing():
    """Over HTTP, nothing can be published and no figures are told."""
    path = urlsplit(URL).path
    below = path.rstrip("/")
    body = json.dumps({"notification": {"channel": "c"}})
    for target in (path, "/publish", f"{below}/publish"):
        status, _ = ask("POST", target, body, {"Content-Type": "application/json"})
        assert status in (403, 404, 405, 426), (target, status)
    for target in ("/metrics", f"{below}/metrics"):
        status, text = ask("GET", target)
        assert status in (403, 404) and b"crieur_" not in text, (target, status)


def ask(*request):
    connection = http.client.HTTPSConnection("localhost", urlsplit(URL).port, context=TLS, timeout=SECONDS_MAX)
    try:
        connection.request(*request)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def publishes_nothing():
    async with client() as socket:
        await socket.send(f'{{"sender":"server","notification":{notification(0)}}}')
        error = json.loads(await text(socket))
        assert error["error"]["code"] == "forbidden", error
        code, reason = await end(socket)
        assert (code, json.loads(reason)["reason"]) == (1008, "forbidden"), (code, reason)


async def end(socket):
    try:
        raise AssertionError(await text(socket))
    except ConnectionClosed:
        return socket.close_code, socket.close_reason


async def is_told(crieur):
    async with client() as socket:
        await subscribe(socket)
        os.kill(crieur, signal.SIGTERM)
        code, reason = await end(socket)
        assert (code, json.loads(reason)["reason"]) == (1001, "shutdown"), (code, reason)


async def finds_nobody():
    try:
        async with client():
            raise AssertionError("there is nobody")
    except InvalidStatus as error:
        assert error.response.status_code == 502, error


async def is_cut_off():
    async with client() as socket:
        code, _ = await end(socket)
        assert code == 1006, code


PARTS = {"visits": visits, "is-told": is_told, "finds-nobody": finds_nobody, "is-cut-off": is_cut_off}
asyncio.run(PARTS[PLAN["what"]](*PLAN["more"]))
