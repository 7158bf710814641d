"""Clients that come back to any node with their id, and publishers with and without keys, by a node and by themselves."""

import collections
import io
import itertools
import json
import random

from crowd.clients import Client
from crowd.loop import Stream
from crowd.wire import Violation
from database import STREAM, RedisError, command, place, read_reply
from ledger import Stretch

BACKOFF_SECONDS = 0.05
_PING = '{"type":"ping"}'


class _Line(Client):
    """A resumer's connection."""

    def __init__(self, resumer, address):
        self.resumer = resumer
        super().__init__(resumer.loop, address)

    def on_upgraded(self):
        self.resumer.ask()

    def on_refused(self):
        self.resumer.over()

    def on_text(self, payload):
        self.resumer.hear(json.loads(payload))

    def on_end(self, error):
        self.resumer.over()


class Resumer:
    """A numbered client. `nodes` has the addresses to which it comes back, one after the other."""

    def __init__(self, loop, ledger, nodes, name, channels, *, first=0):
        self.loop, self.ledger, self.name, self.channels = loop, ledger, name, channels
        self._nodes = itertools.cycle(nodes[first:] + nodes[:first])
        self.node = None
        self.position = ""
        self.stretches = []
        self.joined_at = None
        # When it was told at last that it can't be told what it has missed.
        self.uncertain_until = float("-inf")
        self.is_ready = self.is_leaving = False
        self.told = 0
        self._shown, self._missed = None, None
        self._marks = 0
        self._line = None
        self.connect()

    def connect(self, stay=False):
        """To the next node, or to the same again."""
        if not stay or self.node is None:
            self.node = next(self._nodes)
        self.is_ready = False
        try:
            self._line = _Line(self, self.node)
        except OSError:
            self.over()

    def abort(self):
        """Loses its connection, and is back at another node at once."""
        if self._line is not None:
            self._line.reset()
            self._line = None
        self._forget()
        self.connect()

    def over(self):
        self._line = None
        self._forget()
        if not self.is_leaving:
            self.loop.later(BACKOFF_SECONDS * random.uniform(0.5, 1), self._return)

    def _return(self):
        # Somebody may have had it connect meanwhile.
        if self._line is None and not self.is_leaving:
            self.connect()

    def _forget(self):
        self.is_ready = False
        self._shown = self._missed = None
        self._marks = 0

    def ask(self):
        self._shown = self.position
        subscriptions = {"sender": "client", "subscriptions": self.channels, "since": self.position}
        self._line.say(json.dumps(subscriptions))

    def mark(self):
        """Asks for a Pong; its id says that it has all up to there."""
        self._marks += 1
        self._line.say(_PING)

    @property
    def is_marked(self):
        return self._marks > 0

    @property
    def is_gone(self):
        return self._line is None

    def leave(self):
        self.is_leaving = True
        if self._line is not None:
            self._line.leave()
        self.ledger.check(self.name, self.channels, self.stretches, self.joined_at, self.uncertain_until)

    def hear(self, message):
        kind, id = message["type"], message.get("id")
        if kind == "notification":
            self._deliver(message["notification"], id)
        elif kind == "subscribed":
            self._answered(message)
        elif kind == "caught-up":
            if self._missed != message["missed"]:
                self._untrue(f"it got {self._missed} that it had missed, and was told {message}")
            self._missed = None
            self._move(id)
        elif kind == "gap":
            self.told += 1
            self.ledger.tally.gaps[message["reason"]] += 1
            # Up to there it has everything; from here on it has what comes.
            self._move(id)
            self.stretches.append(Stretch(None))
        elif kind == "pong":
            self._marks -= 1
            self._move(id)
        else:
            raise Violation(f"{self.name} was told {message}")

    def _deliver(self, notification, id):
        note = self.ledger.find(notification)
        if note is None or id is None or note.channel not in self.channels:
            self._untrue(f"it got {notification} as {id}")
            return
        if self._shown is not None:
            self._untrue("a delivery came ahead of the answer to its list")
        self.ledger.identify(note, id, self.name)
        self.ledger.tally.delivered += 1
        self.stretches[-1].got.append((place(id), note))
        if self._missed is not None:
            self._missed += 1
        self._move(id)

    def _answered(self, message):
        shown, self._shown = self._shown, None
        is_resumed, id = message.get("resumed"), message["id"]
        if shown and is_resumed is True:
            self.ledger.tally.resumed += 1
            self._missed = 0
            if id != shown:
                self._untrue(f"it has shown {shown}, and was told {message}")
        else:
            if shown:
                self.told += 1
                self.ledger.tally.not_resumed[message.get("reason")] += 1
                self.uncertain_until = self.loop.now
            elif is_resumed is not None:
                self._untrue(f"it has shown no id, and was told {message}")
            self.stretches.append(Stretch(None if shown else place(id), is_uncertain=bool(shown)))
            self._move(id)
        if self.joined_at is None:
            self.joined_at = self.loop.now
        self.is_ready = True

    def _move(self, id):
        self.position = id
        self.stretches[-1].reach(place(id))

    def _untrue(self, text):
        self.ledger.tally.fault("untrue", f"{self.name}: {text}")


class _PublishLine(Client):
    def __init__(self, publisher, address):
        self.publisher = publisher
        super().__init__(publisher.loop, address, path="/publish")

    def on_upgraded(self):
        self.publisher.pump()

    def on_text(self, payload):
        self.publisher.answered(json.loads(payload))

    def on_refused(self):
        self.publisher.over()

    def on_end(self, error):
        self.publisher.over()


class Publisher:
    """Publishes by a node. With keys it repeats what wasn't acknowledged, until it is; without it goes on."""

    IN_FLIGHT_MAX = 64

    def __init__(self, loop, ledger, nodes, name, channels, *, has_keys, first=0):
        self.loop, self.ledger, self.name, self.channels, self.has_keys = loop, ledger, name, channels, has_keys
        self._nodes = itertools.cycle(nodes[first:] + nodes[:first])
        self._dice = random.Random(name)
        self._in_flight, self._again = collections.deque(), collections.deque()
        self._rests = False
        self.left = self.repeated = 0
        self.is_leaving = False
        self._line = None
        self._connect()

    @property
    def is_up(self):
        return self._line is not None and self._line.is_upgraded

    @property
    def is_idle(self):
        return not self.left and not self._in_flight and not self._again

    def publish(self, count=1):
        self.left += count
        self.pump()

    def pump(self):
        while self.is_up and len(self._in_flight) < self.IN_FLIGHT_MAX and not self._rests:
            if self._again:
                text, note = self._again.popleft()
            elif self.left:
                self.left -= 1
                text, note = self.ledger.issue(self.name, self._dice.choice(self.channels), self.loop.now)
            else:
                return
            self._in_flight.append((text, note))
            key = f'"key":"{note.by} {note.number}",' if self.has_keys else ""
            self._line.say(f'{{"sender":"server",{key}"notification":{text}}}')

    def answered(self, answer):
        text, note = self._in_flight.popleft()
        if answer["type"] == "published":
            self.repeated += bool(answer.get("repeated"))
            self.ledger.acknowledge(note, answer["id"], self.loop.now)
        elif answer["type"] == "error" and answer["error"]["code"] == "unavailable":
            detail = answer["error"]["detail"]
            may_have_been = "may have been published" in detail
            if not may_have_been and "was not published" not in detail:
                self.ledger.tally.fault("untrue", f"it isn't said whether it was published: {detail}")
            self._refused(text, note, may_have_been)
        else:
            raise Violation(f"{self.name} was answered {answer}")
        self.pump()

    def _refused(self, text, note, may_have_been):
        self.ledger.refuse(note, may_have_been)
        if self.has_keys:
            self._again.append((text, note))
        # It would be refused as fast as it can be said.
        self._rests = True
        self.loop.later(BACKOFF_SECONDS, self._rested)

    def _rested(self):
        self._rests = False
        self.pump()

    def over(self):
        self._line = None
        for text, note in self._in_flight:
            # Its node has been killed: nobody knows.
            self._refused(text, note, True)
        self._in_flight.clear()
        if not self.is_leaving:
            self.loop.later(BACKOFF_SECONDS, self._connect)

    @property
    def is_gone(self):
        return self._line is None

    def leave(self):
        self.is_leaving = True
        if self.is_up:
            self._line.leave()

    def _connect(self):
        try:
            self._line = _PublishLine(self, next(self._nodes))
        except OSError:
            self.over()


class _Adder(Stream):
    """A connection to Redis."""

    def __init__(self, stranger, port):
        self.stranger, self._unread = stranger, b""
        self.dial(stranger.loop, ("127.0.0.1", port))

    def on_connected(self):
        self.stranger.pump()

    def on_data(self, data):
        self._unread += data
        while self._unread and self.is_open:
            answers = io.BytesIO(self._unread)
            try:
                reply = read_reply(answers)
            except OSError:
                return
            self._unread = self._unread[answers.tell() :]
            self.stranger.answered(reply)

    def on_end(self, error):
        self.stranger.over()


class Stranger:
    """Publishes by XADD, without a node."""

    IN_FLIGHT_MAX = 32

    def __init__(self, loop, ledger, database, name, channels):
        self.loop, self.ledger, self.name, self.channels = loop, ledger, name, channels
        # Which of them it publishes to.
        self.database = database
        self._dice = random.Random(name)
        self._in_flight = collections.deque()
        self.left = 0
        self.is_leaving = False
        self._line = None
        self._connect()

    @property
    def is_up(self):
        return self._line is not None and self._line.is_connected

    @property
    def is_idle(self):
        return not self.left and not self._in_flight

    def publish(self, count=1):
        self.left += count
        self.pump()

    def pump(self):
        while self.is_up and self.left and len(self._in_flight) < self.IN_FLIGHT_MAX:
            self.left -= 1
            text, note = self.ledger.issue(self.name, self._dice.choice(self.channels), self.loop.now)
            self._in_flight.append(note)
            json_text = f'{{"notification":{text}}}'
            self._line.send(command("XADD", STREAM, "MAXLEN", "~", 100000, "*", "n", json_text))

    def answered(self, reply):
        note = self._in_flight.popleft()
        if isinstance(reply, RedisError):
            self.ledger.refuse(note, False)
            self.left = 0
        else:
            self.ledger.acknowledge(note, reply.decode(), self.loop.now)
        self.pump()

    def over(self):
        self._line = None
        for note in self._in_flight:
            self.ledger.refuse(note, True)
        self._in_flight.clear()
        if not self.is_leaving:
            self.loop.later(BACKOFF_SECONDS, self._connect)

    @property
    def is_gone(self):
        return self._line is None

    def leave(self):
        self.is_leaving = True
        if self._line is not None:
            self._line.close()
            self._line = None

    def _connect(self):
        if self.is_leaving:
            return
        try:
            self._line = _Adder(self, self.database.port)
        except OSError:
            self.over()
