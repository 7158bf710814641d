"""Subscribes with tokens that others' libraries signed: PyJWT, npm's jsonwebtoken, Node alone, PHP by hand.

    python tokens_client.py HOST:PORT CRIEUR ALG KEYS PRIVATE...

The server at HOST:PORT takes tokens that any key of the files PRIVATE has signed, by the keys of the file KEYS. Each
token is shown in each place where it may stand; what it doesn't allow is refused, and what expired or was signed by
somebody else is closed with 3000. The program CRIEUR makes tokens too, which PyJWT reads, and explains those of others.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = Path(__file__).resolve().parent
ALLOWED = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2", "5"]}}}
NARROWER = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2"], "urgent": True}}}
WIDER = {"package": "clients", "page": "tokens", "filters": {"values": {"channel": ["2", "3"]}}}
SECONDS_MAX = 10


def main():
    address, program, algorithm, keys, *private_files = sys.argv[1:]
    makers = {
        "PyJWT": lambda claims, key: jwt.encode(claims, key, algorithm=algorithm),
        "Node alone": command("node", HERE.parent / "node" / "sign.js", algorithm),
    }
    if algorithm == "HS256":
        makers["jsonwebtoken"] = command("node", HERE.parent / "node" / "token.js")
        makers["php"] = command("php", HERE.parent / "php" / "token.php")
    stranger = STRANGERS[algorithm]()
    for private_file in private_files:
        # A secret is its line, without the end of it.
        key = Path(private_file).read_text().strip()
        for make in makers.values():
            check(address, lambda claims, key=key: make(claims, key), stranger)
            explain(program, keys, make(claims_of(60), key), "taken: ", 0)
            explain(program, keys, make(claims_of(60), stranger), "signed with no key", 1)
        check_token_of_crieur(address, program, private_file, algorithm, key)
    print(f"tokens of {', '.join(makers)}, crieur with {algorithm}: taken where they may be, refused where they should be")


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


STRANGERS = {
    "HS256": lambda: "another key, which has 32 bytes and more",
    "ES256": lambda: pem(ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": lambda: pem(ed25519.Ed25519PrivateKey.generate()),
}


def claims_of(seconds):
    now = int(time.time())
    return {"sub": "bob", "iat": now, "nbf": now, "exp": now + seconds, "allow": [ALLOWED, "Production"]}


def run_crieur(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def explain(program, keys, token, expected, status):
    result = run_crieur(program, "token", "--check", token, "--client-key-file", keys)
    assert result.returncode == status and expected in result.stdout, result


def check_token_of_crieur(address, program, private_file, algorithm, key):
    """The server takes what `crieur token` has signed, and PyJWT reads what it was told to say."""
    claims = claims_of(60)
    flags = ["--key-file", private_file, "--allow", json.dumps(claims["allow"]), "--ttl", "60s", "--sub", claims["sub"]]
    result = run_crieur(program, "token", *flags)
    assert result.returncode == 0, result
    token = result.stdout.strip()
    public = key if algorithm == "HS256" else load_pem_private_key(key.encode(), None).public_key()
    read = jwt.decode(token, public, algorithms=[algorithm])
    assert read["sub"] == claims["sub"] and read["allow"] == claims["allow"], read
    assert read["exp"] - read["iat"] == 60, read
    with connect(f"ws://{address}/?token={token}") as client:
        assert ask(client, [NARROWER, "Production"])["type"] == "subscribed"
        assert ask(client, [WIDER])["error"]["code"] == "forbidden"


def command(*words):
    def make(claims, key):
        result = subprocess.run([*words, key], input=json.dumps(claims), capture_output=True, text=True, check=True)
        return result.stdout.strip()

    return make


def check(address, make, stranger):
    claims = claims_of(300)
    now = claims["iat"]
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
        make(claims, stranger),
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
