"""What was published, and what each connection has to get of it.

Every notification has a publisher, a channel, a number within both (`number`, without gaps) and one
among all of its publisher's (`order`). A connection must get those that were published from its
answer `subscribed` on, until it leaves, each once and in order, byte for byte. Those that were under way while
it subscribed or left may come or not, but without gaps. Those that were settled before it asked,
and those of other channels, must not come.
"""

import dataclasses
import hashlib

from . import wire

SAMPLES_MAX = 5
# Longer texts are known by their digest.
KEPT_BYTES_MAX = 1024


class Note:
    """A notification."""

    __slots__ = ("source", "channel", "number", "order", "sent_at")

    def __init__(self, source, channel, number, order, sent_at):
        self.source, self.channel, self.number, self.order, self.sent_at = source, channel, number, order, sent_at

    def __str__(self):
        return f"{self.source}'s {self.number} on {self.channel}"


@dataclasses.dataclass
class Tally:
    """Deliveries, counted."""

    expected: int = 0
    got: int = 0
    missing: int = 0
    doubled: int = 0
    disordered: int = 0
    misrouted: int = 0
    damaged: int = 0
    # Ids, and what is said of what was missed.
    untrue: int = 0
    samples: list = dataclasses.field(default_factory=list)

    @property
    def faults(self):
        return self.missing + self.doubled + self.disordered + self.misrouted + self.damaged + self.untrue

    def fault(self, kind, text, count=1):
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{kind}: {text}")


class Ids:
    """Which notification has which id: one each, in its receipts and at every client."""

    def __init__(self, tally):
        self._tally = tally
        self._ids, self._notes = {}, {}

    def check(self, note, id, whom):
        known, other = self._ids.setdefault(note, id), self._notes.setdefault(id, note)
        if known != id:
            self._tally.fault("untrue", f"{whom} was told {id} of {note}, which is {known}")
        elif other is not note:
            self._tally.fault("untrue", f"{whom} was told {id} of {note}, which is that of {other}")


def place(id):
    """Where an id is in the log: the tests know how ids are made, clients don't."""
    generation, _, position = id.partition("-")
    if len(generation) != 16 or not position.isdigit():
        raise wire.Violation(f"{id!r} is no id")
    return int(position)


class Ledger:
    def __init__(self):
        self.tally = Tally()
        self.ids = Ids(self.tally)
        self.published = 0
        self._notes = {}
        # By channel, then by publisher: how many were sent, and how many of them can't be
        # under way any more.
        self._sent = {}
        self._settled = {}
        self._orders = {}

    def issue(self, source, channel, now, size=0):
        """The text of a notification that is about to be sent, and what it is known by."""
        sent = self._sent.setdefault(channel, {})
        number = sent.get(source, 0)
        order = self._orders.get(source, 0)
        sent[source] = number + 1
        self._orders[source] = order + 1
        self.published += 1
        text = f'{{"channel":"{channel}","source":"{source}","number":{number},"order":{order},"text":"'
        # So that a part of one can't pass for a part of another.
        filler = f"{source}{order:x}."
        text += (filler * (max(0, size - len(text)) // len(filler)))[: max(0, size - len(text))] + '"}'
        note = Note(source, channel, number, order, now)
        self._notes[_key(f'{{"type":"notification","notification":{text}}}'.encode())] = note
        return text, note

    def settle(self, note):
        """It was answered, or its publisher's connection is gone: who subscribes from now on
        mustn't get it."""
        self._settled.setdefault(note.channel, {})[note.source] = note.number + 1

    def find(self, payload):
        return self._notes.get(_key(payload))

    def sent(self, channel):
        return dict(self._sent.get(channel, ()))

    def settled(self, channel):
        return dict(self._settled.get(channel, ()))


def _key(payload):
    return payload if len(payload) <= KEPT_BYTES_MAX else hashlib.blake2b(payload, digest_size=20).digest()


class _Window:
    """The time of one connection on one channel."""

    __slots__ = ("may", "must", "first", "next", "holes")

    def __init__(self, may):
        # Numbers from which on a publisher's notifications may come, and must.
        self.may = may
        self.must = None
        self.first, self.next, self.holes = {}, {}, {}


class Inbox:
    """What one connection gets."""

    def __init__(self, ledger, name):
        self.name = name
        self.got = 0
        self._ledger = ledger
        self._tally = ledger.tally
        self._windows = {}
        self._asked = None
        self._leaving = {}
        self._orders = {}
        self._until = None

    def subscribe(self, channels):
        """The list is sent now."""
        assert self._asked is None, "one list at a time"
        self._asked = {name: _Window(self._ledger.settled(name)) for name in channels if name not in self._windows}
        gone = self._windows.keys() - set(channels)
        self._leaving = {name: self._ledger.settled(name) for name in gone}

    def subscribed(self):
        """It was answered now."""
        for name, until in self._leaving.items():
            self._close(self._windows.pop(name), name, until)
        for name, window in self._asked.items():
            window.must = self._ledger.sent(name)
            self._windows[name] = window
        self._asked, self._leaving = None, {}

    def mark(self):
        """What is settled now has to come before the answer to what is asked now."""
        self._until = {name: self._ledger.settled(name) for name in self._windows}

    def unmark(self):
        """The connection was cut off before it could be asked."""
        self._until = None

    def close(self):
        """Nothing comes any more. What came must be without gaps, and if there was a `mark`,
        reach it."""
        for name, window in self._windows.items():
            # A list that takes it off a channel has perhaps been heard.
            until = None if name in self._leaving or self._until is None else self._until.get(name)
            self._close(window, name, until or {})
        self._windows = {}

    def receive(self, payload):
        """A text message that isn't an answer. The notification, if it is right to have come."""
        note = self._ledger.find(payload)
        if note is None:
            self._tally.fault("damaged", f"{self.name} got {payload[:120]!r}")
            return None
        window = self._windows.get(note.channel)
        if window is None:
            self._tally.fault("misrouted", f"{self.name} got {note}, subscribed to {sorted(self._windows)}")
            return None
        self.got += 1
        if self._count(window, note) and note.order < self._orders.get(note.source, -1):
            self._tally.fault("disordered", f"{self.name} got {note} behind a later one")
        self._orders[note.source] = max(note.order, self._orders.get(note.source, -1))
        return note

    def _count(self, window, note):
        """Whether it is in its place among those of its channel."""
        source, number = note.source, note.number
        following = window.next.get(source)
        if following == number:
            window.next[source] = number + 1
            return True
        if following is None:
            if number < window.may.get(source, 0):
                self._tally.fault("misrouted", f"{self.name} got {note}, published before it subscribed")
                return False
            following = min(number, window.must.get(source, 0))
            window.first[source] = following
        if number >= following:
            window.holes.setdefault(source, set()).update(range(following, number))
            window.next[source] = number + 1
            return True
        holes = window.holes.get(source, ())
        if number in holes:
            holes.discard(number)
            self._tally.fault("disordered", f"{self.name} got {note} behind a later one")
        elif number < window.first[source]:
            window.first[source] = number
            self._tally.fault("disordered", f"{self.name} got {note} behind a later one")
        else:
            self._tally.fault("doubled", f"{self.name} got {note} again")
        return False

    def _close(self, window, channel, until):
        for source in window.next.keys() | until.keys():
            first = window.first.get(source, window.must.get(source, 0))
            following = window.next.get(source, first)
            end = max(following, until.get(source, 0))
            holes = window.holes.get(source, ())
            missing = len(holes) + end - following
            self._tally.expected += end - first
            self._tally.got += end - first - missing
            if missing:
                which = sorted(holes)[:3] if holes else f"from {following}"
                text = f"{self.name} on {channel} lacks {missing} of {source}'s {first} to {end - 1}: {which}"
                self._tally.fault("missing", text, missing)
