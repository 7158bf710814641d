"""Subscribes with tokens that others' libraries signed: PyJWT, npm's jsonwebtoken, PHP by hand.

    python tokens_client.py HOST:PORT KEY

The server at HOST:PORT takes tokens that KEY signed. Each token is shown in each place where it may
stand; what it doesn't allow is refused, and what expired or was signed by somebody else is closed
with 3000.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import jwt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = Path(__file__).resolve().parent
ALLOWED = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2", "5"]}}}
NARROWER = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2"], "urgent": True}}}
WIDER = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2", "3"]}}}
SECONDS_MAX = 10


def main():
    address, key = sys.argv[1:]
    makers = {
        "PyJWT": lambda claims, key: jwt.encode(claims, key, algorithm="HS256"),
        "jsonwebtoken": command("node", HERE.parent / "node" / "token.js"),
        "php": command("php", HERE.parent / "php" / "token.php"),
    }
    for name, make in makers.items():
        check(address, lambda claims, key=key: make(claims, key))
        print(f"tokens of {name}: taken where they may be, refused where they should be")


def command(*words):
    def make(claims, key):
        result = subprocess.run([*words, key], input=json.dumps(claims), capture_output=True, text=True, check=True)
        return result.stdout.strip()

    return make


def check(address, make):
    now = int(time.time())
    claims = {"sub": "bob", "iat": now, "nbf": now, "exp": now + 300, "allow": [ALLOWED, "Production"]}
    token = make(claims)
    url = f"ws://{address}/"
    in_target = connect(f"{url}?token={token}")
    in_field = connect(url, additional_headers={"Authorization": f"Bearer {token}"})
    for client in (in_target, in_field):
        with client:
            assert ask(client, [NARROWER, "Production"])["type"] == "subscribed"
            assert ask(client, [WIDER])["error"]["code"] == "forbidden"
    # An `Origin` makes it no local peer, which may publish and needs no token to stay.
    with connect(url, origin=f"http://{address}") as client:
        assert ask(client, [ALLOWED], token)["type"] == "subscribed"
    for bad in (
        make({**claims, "exp": now - 60}),
        make({**claims, "nbf": now + 60}),
        make(claims, "another key, which has 32 bytes and more"),
        jwt.encode(claims, "another key, which has 32 bytes and more", algorithm="HS512"),
        token[:-1],
    ):
        assert closed(connect(f"{url}?token={bad}", origin=f"http://{address}")) == 3000, bad


def ask(client, subscriptions, token=None):
    message = {"sender": "client", "subscriptions": subscriptions}
    client.send(json.dumps(message if token is None else {**message, "token": token}))
    return json.loads(client.recv(timeout=SECONDS_MAX))


def closed(client):
    try:
        client.recv(timeout=SECONDS_MAX)
    except ConnectionClosed as end:
        return end.rcvd.code
    raise AssertionError("an answer instead of a Close")


main()
