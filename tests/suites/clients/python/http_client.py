"""Publishes over HTTP with clients that others wrote: curl, PHP's curl, Python's `http.client`,
Node's `fetch` and `http`. A subscriber sees that each notification arrives, in order."""

import http.client
import json
import subprocess
import sys
from pathlib import Path

from cases import without_ids
from websockets.sync.client import connect

CLIENTS = Path(__file__).resolve().parent.parent
HEADER = "Content-Type: application/json"


def body(name, number):
    return json.dumps({"notification": {"channel": "http", "from": name, "n": number}})


def curl(url, _address):
    def run(*arguments):
        command = ["curl", "-sS", "--fail", "-H", HEADER, *arguments]
        return without_ids(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)

    assert run("-d", body("curl", 0), url) == '{"delivered":1}'
    chunked = ["-H", "Transfer-Encoding: chunked"]
    assert run(*chunked, "-d", body("curl", 1), url) == '{"delivered":1}'
    # Two requests on one connection, the second with a body for which curl asks first.
    large = json.dumps({"notification": {"channel": "http", "from": "curl", "n": 3, "fill": "x" * 100_000}})
    file = subprocess.run(
        ["curl", "-sS", "--fail", "-H", HEADER, "-d", body("curl", 2), url, "-w", " %{num_connects} ", "--next"]
        + ["-sS", "--fail", "-H", HEADER, "-H", "Expect: 100-continue", "-d", "@-", url, "-w", " %{num_connects}"],
        input=large,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    file = without_ids(file)
    assert file == '{"delivered":1} 1 {"delivered":1} 0', file
    return 4


def php(url, _address):
    bodies = [body("php", number) for number in range(3)]
    command = ["php", CLIENTS / "php" / "curl.php", url, *bodies]
    answers = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    assert without_ids(answers).splitlines() == ['200 {"delivered":1}'] * 3, answers
    return 3


def python(_url, address):
    connection = http.client.HTTPConnection(address, timeout=10)
    headers = {"Content-Type": "application/json"}
    for number, chunked in enumerate([False, True, False]):
        text = body("python", number).encode()
        content = iter([text[:10], text[10:]]) if chunked else text
        connection.request("POST", "/publish", content, headers, encode_chunked=chunked)
        socket = connection.sock
        response = connection.getresponse()
        assert (response.status, without_ids(response.read().decode())) == (200, '{"delivered":1}')
        assert connection.sock is socket, "the connection is kept"
    connection.request("POST", "/publish", b"{}", headers)
    response = connection.getresponse()
    assert response.status == 400 and json.load(response)["error"]["code"] == "invalid-notification"
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"ok\n")
    return 3


def node(url, _address):
    command = ["node", CLIENTS / "node" / "http_client.js", url, *[body("node", number) for number in range(4)]]
    subprocess.run(command, check=True, timeout=60)
    return 4


def main(address):
    url = f"http://{address}/publish"
    with connect(f"ws://{address}/") as subscriber:
        subscriber.send('{"sender":"client","subscriptions":["http"]}')
        subscriber.recv(timeout=10)
        for publish in (curl, php, python, node):
            for number in range(publish(url, address)):
                notification = json.loads(subscriber.recv(timeout=10))["notification"]
                got = notification["from"], notification["n"]
                assert got == (publish.__name__, number), got


main(sys.argv[1])
