"""The clients of the soak beside the attackers: steady, fickle, passing and slow ones; and the publishers."""

import random
import time

from crowd.clients import Client, Crowd, Publisher, Subscriber
from crowd.loop import Stream

CHANNELS = [f"k{number}" for number in range(20)]
BULK = "bulk"
STEADY, FICKLE, SLOW = 200, 40, 12


class Steady(Crowd):
    """Are there from the beginning to the end, and get everything."""

    def __init__(self, loop, ledger, address):
        super().__init__(loop, ledger, address, "steady")
        self.latencies_ms = []
        self.gather(STEADY, lambda number: [CHANNELS[number % 20], CHANNELS[(number * 7 + 3) % 20]])

    def on_delivery(self, note):
        self.latencies_ms.append((time.monotonic() - note.sent_at) * 1000)

    def take_latencies(self):
        taken, self.latencies_ms = self.latencies_ms, []
        return taken


class Fickle(Crowd):
    """Want something else every now and then."""

    def __init__(self, loop, ledger, address):
        super().__init__(loop, ledger, address, "fickle")
        self.changes = 0
        self.gather(FICKLE, lambda number: [CHANNELS[number % 20]])

    def change(self):
        member = self.members[self.changes % len(self.members)]
        self.changes += 1
        # Kept ones, new ones, none at all.
        member.want(random.sample(CHANNELS, random.choice((0, 1, 2, 3))))


class Passing(Crowd):
    """Come, subscribe, and go again at any moment: checked to the end, with a Close, hanging up, with a reset."""

    def __init__(self, loop, ledger, address):
        super().__init__(loop, ledger, address, "passing")
        self.known = set()

    def come(self):
        subscriber = Subscriber(self, f"passing-{self.connects}", random.sample(CHANNELS, random.choice((1, 1, 2, 3))))
        self.open += 1
        self.known.add(subscriber)
        subscriber.connect()
        self.loop.later(random.uniform(0, 1.5), lambda: self._go(subscriber))

    def _go(self, subscriber):
        self.known.discard(subscriber)
        if subscriber.client is None:
            return
        how = random.random()
        if subscriber.is_ready and how < 0.5:
            subscriber.mark()
        elif subscriber.client.is_upgraded and how < 0.65:
            subscriber.client.leave()
        elif how < 0.85:
            subscriber.client.close()
            subscriber.over("hung up")
        else:
            subscriber.abort()

    def leave(self, seconds_max=60):
        self.is_leaving = True
        for subscriber in list(self.known):
            self._go(subscriber)
        self.loop.until(lambda: self.open == 0, "all of passing gone", seconds_max)


class Slow(Crowd):
    """Read nothing for a while, or a little now and then; want what is large; come back when cut off."""

    def __init__(self, loop, ledger, address):
        super().__init__(loop, ledger, address, "slow", returns=True, receive_buffer=4096)
        self.gather(SLOW, lambda number: [BULK, CHANNELS[number % 20]])
        for member in self.members:
            self._stall(member)

    def _stall(self, member):
        if member.client is not None and member.client.is_open and not self.is_leaving:
            member.client.pause_reading()
        is_stuck = member is self.members[0] or random.random() < 0.5
        self.loop.later(random.uniform(6, 12) if is_stuck else 0.3, lambda: self._read(member))

    def _read(self, member):
        if member.client is not None and member.client.is_open:
            member.client.resume_reading()
        self.loop.later(random.choice((0.02, 0.02, 0.5)), lambda: self._stall(member))

    def leave(self, seconds_max=60):
        self.is_leaving = True
        for member in self.members:
            member.abort()
        self.loop.until(lambda: self.open == 0, "all of slow gone", seconds_max)


class Rated(Publisher):
    """A kept publisher, so many a second."""

    TICK_SECONDS = 0.05

    def __init__(self, loop, ledger, address, name, channels, rate, **how):
        super().__init__(loop, ledger, address, name, channels, **how)
        self._due = 0.0
        self._timer = loop.every(self.TICK_SECONDS, self._tick)
        self._rate = rate
        self._then = time.monotonic()

    def _tick(self):
        now = time.monotonic()
        # What a stall has kept from going out is not made up for.
        self._due += min(now - self._then, 0.5) * self._rate
        self._then = now
        if self.is_up and self._due >= 1:
            self.publish(int(self._due))
            self._due -= int(self._due)

    def leave(self):
        self._timer.cancel()
        super().leave()


class Post(Stream):
    """An array of notifications by HTTP, on a connection of its own."""

    def __init__(self, posts, count):
        self.posts = posts
        issued = [posts.issue() for _ in range(count)]
        self.notes = [note for _, note in issued]
        body = "[%s]" % ",".join('{"notification":%s}' % text for text, _ in issued)
        head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        self._answer = b""
        self.dial(posts.loop, posts.address)

    def on_connected(self):
        self.send(self._request)

    def on_data(self, data):
        self._answer += data

    def on_end(self, error):
        self.posts.over(self.notes, self._answer.startswith(b"HTTP/1.1 200 "), self._answer)


class Ephemeral(Client):
    """One notification, on a connection of its own."""

    def __init__(self, posts):
        self.posts = posts
        self._text, self._note = posts.issue()
        super().__init__(posts.loop, posts.address)

    def on_upgraded(self):
        self.say(f'{{"sender":"server","notification":{self._text}}}')

    def on_end(self, error):
        self.posts.over([self._note], self.code == 1000 and b'"delivered"' in self.reason, self.reason)


class Posts:
    """Publishers that come for one message each, one after the other, so that their order is known."""

    def __init__(self, loop, ledger, address):
        self.loop, self.ledger, self.address = loop, ledger, address
        self.is_busy = self.is_leaving = False
        self.taken = 0
        self.failures = []

    def issue(self):
        return self.ledger.issue("posts", random.choice(CHANNELS), time.monotonic(), 300)

    def go(self):
        if not self.is_busy:
            self.is_busy = True
            if self.taken % 3:
                Ephemeral(self)
            else:
                Post(self, 5)

    def over(self, notes, is_taken, answer):
        self.is_busy = False
        self.taken += 1
        for note in notes:
            self.ledger.settle(note)
        if not is_taken:
            self.failures.append(f"a publisher of one message was answered {answer[:100]!r}")
