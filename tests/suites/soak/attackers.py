"""The attackers. Each kind knows what it must be answered, and never gets more."""

import collections
import os
import random

from crowd import wire
from crowd.loop import Stream

OUTCOME_SECONDS_MAX = 30
_REFUSED = {400, 405, 408, 414, 431, 501, 505}


class Attacker(Stream):
    """Makes a connection; its outcome is a status, the code of a Close, or `end`."""

    # What may come of it.
    expected = frozenset()

    def __init__(self, siege):
        self.siege = siege
        self.is_upgraded = False
        self.outcome = None
        # The test itself was slow: what the server says of the time is right then.
        self.is_late = False
        self._dialled_at = siege.loop.now
        self._data = b""
        self._late = siege.loop.later(OUTCOME_SECONDS_MAX, lambda: self.end("nothing"))
        try:
            self.dial(siege.loop, siege.address)
        except OSError:
            self._late.cancel()
            raise

    def begin(self):
        """Says the first thing."""
        self.send(wire.upgrade())

    def strike(self):
        """It is let in."""

    def heard(self, payload):
        """An answer, perhaps the outcome."""

    def on_connected(self):
        self.is_late = self.loop.now - self._dialled_at > 1
        self.begin()

    def on_data(self, data):
        self._data += data
        if not self.is_upgraded:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            status = wire.status(head + end)
            if status != 101:
                self.end(status)
                return
            self.is_upgraded, self._data = True, rest
            self.strike()
        found, taken = wire.frames(self._data)
        self._data = self._data[taken:]
        for opcode, payload in found:
            if opcode == wire.CLOSE:
                self.end(int.from_bytes(payload[:2], "big"))
                return
            if opcode == wire.TEXT:
                self.heard(payload)
                if self.outcome is not None:
                    return

    def on_end(self, error):
        self.end("end")

    def end(self, outcome):
        if self.outcome is None:
            self.outcome = outcome
            self._late.cancel()
            self.close()
            self.siege.over(self)


class Garbage(Attacker):
    """Noise, and what is meant for other servers."""

    expected = _REFUSED
    texts = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n", b"GET\r\n\r\n", b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n : \r\n\r\n",
    )

    def begin(self):
        self.send(random.choice(self.texts) if random.random() < 0.5 else os.urandom(300) + b"\r\n\r\n")


class Silence(Attacker):
    """Says nothing."""

    expected = {408}

    def begin(self):
        pass


class SlowHead(Attacker):
    """A byte of the upgrade now and then."""

    expected = {408}

    def begin(self):
        self._text = iter(wire.upgrade()[:-1])
        self._dribble()

    def _dribble(self):
        if self.is_open and (byte := next(self._text, None)) is not None:
            self.send(bytes([byte]))
            self.loop.later(0.1, self._dribble)


class SlowFrame(SlowHead):
    """A byte of a message now and then."""

    expected = {1008}

    def begin(self):
        self.send(wire.upgrade())

    def strike(self):
        self._text = iter(wire.frame(wire.TEXT, b" " * 5000)[:-1])
        self._dribble()


class LongHead(Attacker):
    """A header field that never ends."""

    expected = {431, "end"}

    def begin(self):
        self.send(wire.upgrade(fields=[b"X: " + b"x" * 20_000]))


class Frames(Attacker):
    """Bytes behind the upgrade."""

    def strike(self):
        self.send(self.bytes())


class Announced(Frames):
    """Says that a terabyte will come."""

    expected = {1009}

    def bytes(self):
        return b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"mask" + bytes(1000)


class Oversize(Frames):
    """One byte more than is allowed."""

    expected = {1009}

    def bytes(self):
        return wire.frame(wire.TEXT, b" " * 65537)


class Unmasked(Frames):
    expected = {1002}

    def bytes(self):
        return wire.frame(wire.TEXT, b"{}", mask=False)


class Reserved(Frames):
    """Bits and opcodes that mean nothing here."""

    expected = {1002}

    def bytes(self):
        return bytes([random.choice((0xC1, 0xA1, 0x91, 0x83, 0x8B, 0x09))]) + b"\x80mask"


class NoText(Frames):
    """Text that is none."""

    expected = {1007}

    def bytes(self):
        return wire.frame(wire.TEXT, b"\xc3\x28")


class Binary(Frames):
    expected = {1003}

    def bytes(self):
        return wire.frame(wire.BINARY, os.urandom(100))


class Forger(Frames):
    """Publishes without permission. It must not be delivered: the ledger doesn't know it."""

    expected = {1008}

    def begin(self):
        self.send(wire.upgrade(random.choice(("/", "/publish"))))

    def bytes(self):
        return wire.text('{"sender":"server","notification":{"channel":"%s","forged":true}}' % self.siege.channel())


class ForgedPost(Attacker):
    """The same by HTTP."""

    expected = {403}

    def begin(self):
        body = '{"notification":{"channel":"%s","forged":true}}' % self.siege.channel()
        head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        self.send(f"{head}{len(body)}\r\n\r\n{body}".encode())


class PingFlood(Frames):
    """Pings, as many as go out, and their Pongs are read late. It may be cut off for that."""

    expected = {1000, 1013, "end"}

    def bytes(self):
        self.pause_reading()
        self.loop.later(1, self._relent)
        return wire.frame(wire.PING, b"x" * 100) * 3000

    def _relent(self):
        if self.is_open:
            self.resume_reading()
            self.send(wire.close(1000))


class Lists(Frames):
    """List after list of subscriptions, all different."""

    expected = {1000}

    def bytes(self):
        lists = []
        for _ in range(50):
            values = ",".join(f'"{random.getrandbits(64):x}"' for _ in range(50))
            filters = '{"package":"p","page":"q","filters":{"values":{"v":[%s]}}}' % values
            lists.append(wire.text('{"sender":"client","subscriptions":[%s]}' % filters))
        return b"".join(lists) + wire.close(1000)


class TooMany(Frames):
    """More subscriptions than are allowed."""

    expected = {"too-many-subscriptions"}

    def bytes(self):
        return wire.text('{"sender":"client","subscriptions":[%s]}' % ",".join(f'"x{n}"' for n in range(300)))

    def heard(self, payload):
        self.end("too-many-subscriptions" if b'"too-many-subscriptions"' in payload else repr(payload[:80]))


class Vandal(Attacker):
    """Resets the connection, sooner or later in the handshake."""

    expected = {"reset"}

    def begin(self):
        text = wire.upgrade() + wire.text('{"sender":"client","subscriptions":["k0"]}')
        self.send(text[: random.randint(0, len(text))])
        self.reset()
        self.end("reset")


KINDS = (
    Garbage, Silence, SlowHead, SlowFrame, LongHead, Announced, Oversize, Unmasked, Reserved, NoText, Binary, Forger,
    ForgedPost, PingFlood, Lists, TooMany, Vandal,
)


class Siege:
    """Attackers that come one after the other, of all kinds in turn."""

    def __init__(self, loop, address, channels):
        self.loop, self.address, self.channels = loop, address, channels
        self.made = self.open = 0
        self.outcomes = collections.Counter()
        self.unexpected = []

    def channel(self):
        return random.choice(self.channels)

    def attack(self):
        kind = KINDS[self.made % len(KINDS)]
        try:
            kind(self)
        except OSError:
            return
        self.made += 1
        self.open += 1

    def over(self, attacker):
        self.open -= 1
        name = type(attacker).__name__
        self.outcomes[name] += 1
        is_excused = attacker.is_late and attacker.outcome in (408, "end")
        if attacker.outcome not in attacker.expected and not is_excused:
            self.unexpected.append(f"{name} was answered {attacker.outcome}, not {attacker.expected}")
