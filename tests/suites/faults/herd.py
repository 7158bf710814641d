#!/usr/bin/env python3
"""Subscribers in a process of their own, which can be stopped and killed.

    herd.py HOST PORT COUNT RECEIVE_BUFFER CHANNEL...

Says `ready` on standard output when all are subscribed, member N to channel N modulo their number. `report`
on standard input has it write one line of JSON: the texts that came, each once, and for each member which
of them it got, in order, and the code of its Close. A member that is still connected is asked for a Pong
first, so all that was sent to it is there.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "support"))
sys.dont_write_bytecode = True
from crowd import wire  # noqa: E402
from crowd.clients import Client  # noqa: E402
from crowd.ledger import Inbox  # noqa: E402
from crowd.loop import Loop, Stream  # noqa: E402


class _Member(Client):
    def __init__(self, loop, address, channel, receive_buffer, texts):
        self.channel, self.texts = channel, texts
        self.got = []
        self.is_ready = self.is_over = self.has_answered = False
        super().__init__(loop, address, receive_buffer=receive_buffer)

    def on_upgraded(self):
        self.say(json.dumps({"sender": "client", "subscriptions": [self.channel]}))

    def on_text(self, payload):
        if payload.startswith(b'{"type":"subscribed",'):
            self.is_ready = True
        elif payload == b'{"type":"pong"}':
            self.has_answered = True
        else:
            self.got.append(self.texts.setdefault(payload, len(self.texts)))

    def on_end(self, error):
        self.is_over = True


class _Orders(Stream):
    def __init__(self, loop, connected):
        self.lines = b""
        super().__init__(loop, connected)

    def on_data(self, data):
        self.lines += data

    def on_end(self, error):
        sys.exit()


def main(host, port, count, receive_buffer, *channels):
    loop, texts = Loop(), {}
    orders = _Orders(loop, socket.socket(fileno=os.dup(0)))
    members = [
        _Member(loop, (host, int(port)), channels[number % len(channels)], int(receive_buffer) or None, texts)
        for number in range(int(count))
    ]
    loop.until(lambda: all(member.is_ready for member in members), "a herd subscribed", 60)
    orders.send(b"ready\n")
    loop.until(lambda: orders.lines, "orders", 600)
    for member in members:
        member.send(wire.text('{"type":"ping"}'))
    loop.until(lambda: all(member.has_answered or member.is_over for member in members), "answers or ends", 60)
    report = {
        "texts": [text.decode() for text in texts],
        "members": [[member.got, member.code, member.is_over] for member in members],
    }
    orders.send(json.dumps(report).encode() + b"\n")
    loop.until(lambda: False, "the end", 600)


class Herd(Stream):
    """Such a process, seen from the test's."""

    def __init__(self, loop, ledger, address, count, channels, *, receive_buffer=0):
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-B", HERE, *address, count, receive_buffer, *channels]
        self.process = subprocess.Popen([str(word) for word in command], stdin=theirs, stdout=theirs)
        theirs.close()
        self._said = b""
        self.inboxes = []
        for number in range(count):
            self.inboxes.append(Inbox(ledger, f"herd-{number}"))
            self.inboxes[-1].subscribe([channels[number % len(channels)]])
        super().__init__(loop, ours)

    def wait_until_ready(self):
        self.loop.until(lambda: self._said or not self.is_open, "a herd subscribed", 60)
        self._said = b""
        for inbox in self.inboxes:
            inbox.subscribed()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.close()

    def report(self):
        """Has the ledger check what came, all of it where the connection is still there. The codes of
        the Closes that came, by how many; `None` are those that are still there."""
        for inbox in self.inboxes:
            inbox.mark()
        self.send(b"report\n")
        self.loop.until(lambda: self._said.endswith(b"\n") or not self.is_open, "a herd's report", 90)
        report = json.loads(self._said)
        texts = [text.encode() for text in report["texts"]]
        codes = []
        for inbox, (got, code, is_over) in zip(self.inboxes, report["members"]):
            for index in got:
                inbox.receive(texts[index])
            if is_over:
                inbox.unmark()
            inbox.close()
            codes.append((code or "dropped") if is_over else None)
        return codes

    def on_data(self, data):
        self._said += data

    def on_end(self, error):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
