"""Subscribers that are checked, in crowds, and publishers that feed the ledger."""

import collections
import itertools
import json
import random
import time

from . import wire
from .ledger import Inbox
from .loop import Stream

_PING = wire.text('{"type":"ping"}')
_PONG = b'{"type":"pong"}'
_SUBSCRIBED = b'{"type":"subscribed",'
_BACKOFF_SECONDS, _BACKOFF_SECONDS_MAX = 0.05, 2


class Client(Stream):
    """A WebSocket client."""

    def __init__(self, loop, address, *, path="/", fields=(), source=None, receive_buffer=None):
        self._request = wire.upgrade(path, fields)
        self._tail = b""
        self.is_upgraded = self._has_said_close = False
        # The status code of the response, and of the Close, where there was one.
        self.status, self.code, self.reason = None, None, b""
        self.dial(loop, address, source, receive_buffer)

    def say(self, message):
        self.send(wire.text(message))

    def leave(self):
        """Says Close, and waits for the server's."""
        self._has_said_close = True
        self.send(wire.close(1000))

    def on_connected(self):
        self.send(self._request)

    def on_data(self, data):
        data = self._tail + data if self._tail else data
        if not self.is_upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._tail = head
                return
            self.status = wire.status(head + end)
            if self.status != 101:
                self.close()
                self.on_refused()
                return
            self.is_upgraded = True
            self.on_upgraded()
        found, taken = wire.frames(data)
        self._tail = data[taken:]
        for opcode, payload in found:
            if not self.is_open:
                # An answer to what was ahead of it could not be sent any more.
                return
            if opcode == wire.TEXT:
                self.on_text(payload)
            elif opcode == wire.PING:
                self.send(wire.frame(wire.PONG, payload))
            elif opcode == wire.CLOSE:
                self.code, self.reason = int.from_bytes(payload[:2], "big") or 1005, payload[2:]
                if not self._has_said_close:
                    self.send(wire.frame(wire.CLOSE, payload[:2]))
            elif opcode != wire.PONG:
                raise wire.Violation(f"a frame with opcode {opcode}")

    def on_upgraded(self):
        pass

    def on_refused(self):
        """Another answer than 101 has come; the socket is closed."""

    def on_text(self, payload):
        pass


class Subscriber:
    """A client that wants what is published on some channels, and comes back if told to."""

    def __init__(self, crowd, name, channels):
        self.crowd, self.name, self.channels = crowd, name, channels
        self.client = None
        self.inbox = None
        self.is_ready = False
        self.is_marked = False
        self.heard_at = 0
        self.retries = 0
        self._wanted = None

    def connect(self):
        crowd = self.crowd
        self.is_ready = False
        self.open_inbox()
        self.heard_at = crowd.loop.now
        crowd.connects += 1
        try:
            self.client = _Line(self)
        except OSError:
            self.over(None)

    def open_inbox(self):
        """A connection begins."""
        self.inbox = Inbox(self.crowd.ledger, self.name)

    def close_inbox(self):
        """A connection is over."""
        self.inbox.close()

    def want(self, channels):
        """Changes the subscriptions; those that are still unanswered come first."""
        self.channels = channels
        if self.is_ready:
            self.ask()

    def ask(self):
        self.be_unready()
        self._wanted = self.channels
        self.inbox.subscribe(self.channels)
        self.client.say(json.dumps({"sender": "client", "subscriptions": self.channels}))

    def hear(self, payload):
        self.heard_at = self.crowd.loop.now
        if payload.startswith(b'{"type":"notification"'):
            if note := self.inbox.receive(payload):
                self.crowd.got += 1
                self.crowd.on_delivery(note)
        elif payload.startswith(_SUBSCRIBED):
            self.inbox.subscribed()
            self.retries = 0
            if self._wanted != self.channels:
                self.ask()
                return
            self.be_ready()
        elif payload == _PONG:
            self.pong()
        else:
            # An answer that isn't expected, or a delivery that can't even be told for one.
            self.inbox.receive(payload)

    def be_ready(self):
        self.is_ready = True
        self.crowd.ready += 1

    def be_unready(self):
        if self.is_ready:
            self.is_ready = False
            self.crowd.ready -= 1

    def mark(self):
        """Asks for a Pong: all that was settled before has to come before it."""
        self.is_marked = True
        self.inbox.mark()
        self.client.send(_PING)

    def beat(self):
        self.client.send(_PING)

    def pong(self):
        if self.is_marked:
            # What comes on the way to the end is checked all the same.
            self.is_marked = False
            self.crowd.checked += 1
            self.be_unready()
            self.client.leave()

    def over(self, code, is_back_at_once=False):
        """The connection has ended, with a Close or without (`None`)."""
        crowd = self.crowd
        self.be_unready()
        retry = 0
        if self.client is not None and self.client.reason.startswith(b"{"):
            retry = json.loads(self.client.reason).get("retry", 0) / 1000
        self.client = None
        if self.is_marked:
            self.is_marked = False
            self.inbox.unmark()
        self.close_inbox()
        crowd.ends[code] += 1
        crowd.open -= 1
        if crowd.is_leaving or not crowd.returns:
            return
        crowd.open += 1
        if is_back_at_once:
            self.connect()
            return
        delay = min(_BACKOFF_SECONDS * 2**self.retries, _BACKOFF_SECONDS_MAX) * random.uniform(0.5, 1)
        self.retries = min(self.retries + 1, 10)
        crowd.loop.later(max(delay, min(retry, _BACKOFF_SECONDS_MAX)), self._return)

    def _return(self):
        if self.crowd.is_leaving:
            self.crowd.open -= 1
        elif self.crowd.is_away:
            self.crowd.loop.later(_BACKOFF_SECONDS, self._return)
        else:
            self.connect()

    def abort(self, is_back_at_once=False):
        """Resets the connection."""
        if self.client is not None:
            self.client.reset()
            self.over("reset", is_back_at_once)


class _Line(Client):
    """A subscriber's connection."""

    def __init__(self, subscriber):
        crowd = subscriber.crowd
        self.subscriber = subscriber
        super().__init__(crowd.loop, crowd.address, source=next(crowd.sources), receive_buffer=crowd.receive_buffer)

    def on_upgraded(self):
        self.subscriber.ask()

    def on_refused(self):
        self.subscriber.crowd.refused += 1
        self.subscriber.over(self.status)

    def on_text(self, payload):
        self.subscriber.hear(payload)

    def on_end(self, error):
        self.subscriber.over(self.code)


class Crowd:
    """Subscribers of one kind. With `returns` they come back, with backoff, whatever has cut them off."""

    member = Subscriber

    def __init__(self, loop, ledger, address, name, *, returns=False, sources=(), receive_buffer=None):
        self.loop, self.ledger, self.address, self.name = loop, ledger, address, name
        self.returns, self.receive_buffer = returns, receive_buffer
        self.members = []
        self.is_leaving = False
        # As long as they are, nobody comes back.
        self.is_away = False
        # How many want to be connected, are subscribed, came out right at the end.
        self.open = self.ready = self.checked = 0
        self.connects = self.refused = self.got = 0
        self.ends = collections.Counter()
        # Addresses of the loopback to come from: each has ports of its own.
        self.sources = itertools.cycle(sources or [None])

    def join(self, channels):
        """One more."""
        subscriber = self.member(self, f"{self.name}-{len(self.members)}", channels)
        self.members.append(subscriber)
        self.open += 1
        subscriber.connect()
        return subscriber

    def gather(self, count, channels_of, seconds_max=60):
        """Has `count` come at once, and waits until they are subscribed."""
        for number in range(count):
            self.join(channels_of(number))
        self.wait_until_ready(seconds_max)

    def go_away(self):
        """All are cut off, and don't come back before `come_back`."""
        self.is_away = True
        for member in self.members:
            member.abort()

    def come_back(self):
        self.is_away = False
        self.wait_until_ready()

    def is_ready(self):
        return self.ready == len(self.members)

    def wait_until_ready(self, seconds_max=60):
        self.loop.until(self.is_ready, f"all of {self.name} subscribed", seconds_max)

    def leave(self, seconds_max=60):
        """Has each check that nothing is missing, and go."""
        self.is_leaving = True
        marked = [member for member in self.members if member.is_ready]
        for member in self.members:
            if not member.is_ready and member.client is not None:
                member.abort()
        for member in marked:
            member.mark()
        self.loop.until(lambda: self.open == 0, f"all of {self.name} gone", seconds_max)

    def heartbeat(self, interval, patience):
        """Pings the server now and then, and takes it for dead if it says nothing for a while."""

        def look():
            for member in self.members:
                if member.client is None:
                    continue
                silence = self.loop.now - member.heard_at
                if silence > patience:
                    member.client.reset()
                    member.over("silent")
                elif silence > interval and member.is_ready:
                    member.beat()

        return self.loop.every(interval / 2, look)

    def on_delivery(self, note):
        """For measurements."""


class _PublishLine(Client):
    def __init__(self, publisher):
        self.publisher = publisher
        super().__init__(publisher.loop, publisher.address, path="/publish")

    def on_upgraded(self):
        self.publisher.pump()

    def on_text(self, payload):
        self.publisher.answered(payload)

    def on_sent(self):
        self.publisher.pump()

    def on_refused(self):
        self.publisher.over()

    def on_end(self, error):
        self.publisher.over()


class Publisher:
    """A kept connection that publishes, with some in flight. It comes back, and sends nothing twice:
    what was in flight when its connection ended has come or hasn't."""

    UNSENT_BYTES_MAX = 1 << 20

    def __init__(self, loop, ledger, address, name, channels, *, size=200, in_flight_max=64, seed=0):
        self.loop, self.ledger, self.address, self.name = loop, ledger, address, name
        self.channels, self.size, self.in_flight_max = channels, size, in_flight_max
        self.left = 0
        self.sent = self.answered_count = self.delivered = self.lost = 0
        self._dice = random.Random(f"{name} {seed}")
        self._in_flight = collections.deque()
        self._is_leaving = False
        self._retries = 0
        self._connect()

    def publish(self, count):
        """So many more."""
        self.left += count
        self.pump()

    @property
    def in_flight(self):
        return len(self._in_flight)

    @property
    def is_idle(self):
        return self.left == 0 and not self._in_flight

    @property
    def is_up(self):
        return self._line is not None and self._line.is_upgraded

    def pump(self):
        line = self._line
        while (
            self.left and self.is_up and len(self._in_flight) < self.in_flight_max
            and line.unsent < self.UNSENT_BYTES_MAX
        ):
            self.left -= 1
            self.sent += 1
            size = self.size(self._dice) if callable(self.size) else self.size
            text, note = self.ledger.issue(self.name, self._dice.choice(self.channels), time.monotonic(), size)
            self._in_flight.append(note)
            line.say(f'{{"sender":"server","notification":{text}}}')
            if self._line is not line:
                return

    def answered(self, payload):
        answer = json.loads(payload)
        if answer.get("type") != "published":
            raise wire.Violation(f"a notification was answered {payload!r}")
        self._retries = 0
        self.ledger.settle(self._in_flight.popleft())
        self.answered_count += 1
        self.delivered += answer["delivered"]
        self.pump()

    def leave(self):
        self._is_leaving = True
        self.left = 0
        if self.is_up:
            self._line.leave()

    def close(self):
        """Hangs up."""
        self._is_leaving = True
        if self._line is not None:
            self._line.close()

    def over(self):
        self._line = None
        self.lost += len(self._in_flight)
        for note in self._in_flight:
            self.ledger.settle(note)
        self._in_flight.clear()
        if not self._is_leaving:
            delay = min(_BACKOFF_SECONDS * 2**self._retries, _BACKOFF_SECONDS_MAX)
            self._retries += 1
            self.loop.later(delay, self._connect)

    def _connect(self):
        self._line = None
        if not self._is_leaving:
            try:
                self._line = _PublishLine(self)
            except OSError:
                self.over()
