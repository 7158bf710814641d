"""Subscribers that come back with the id of what they had last, and publishers that repeat what wasn't acknowledged.

Across all its connections such a subscriber must get each notification once, in order, without gaps, as if it
had never been away: it has one inbox for all of them. What the server says of ids, of what was missed, and
whether anything may be missing is checked too; what is wrong of that is `untrue` in the tally.
"""

import collections
import json
import random
import time

from . import wire
from .clients import Crowd, Publisher, Subscriber
from .ledger import Inbox, place
from .loop import Stream

_NUMBERED = b'{"type":"notification","id":"'
_SUBSCRIBED = b'{"type":"subscribed",'
_CAUGHT_UP = b'{"type":"caught-up",'
_PONG = b'{"type":"pong",'


class Resumer(Subscriber):
    """A subscriber of a `ResumingCrowd`. Its list stays the same."""

    def __init__(self, crowd, name, channels):
        super().__init__(crowd, name, channels)
        # The id of the last that it has had, or was told.
        self.position = ""
        self._place = 0
        # What it shows, until that is answered; and its inbox from there on, should the answer be that it has a gap.
        self._shown = None
        self._following = None
        # Deliveries since it was told that it gets what it has missed; `None` while it isn't being caught up.
        self._missed = None

    def open_inbox(self):
        if self.inbox is None:
            super().open_inbox()

    def close_inbox(self):
        """The inbox stays open: what is missed comes yet."""
        self._shown = self._following = self._missed = None
        if self.crowd.is_leaving or not self.crowd.returns or not self.position:
            super().close_inbox()
            self.inbox = None

    def ask(self):
        self._shown = self.position
        inbox = self.inbox
        if self.position:
            inbox = self._following = Inbox(self.crowd.ledger, self.name)
        inbox.subscribe(self.channels)
        self.client.say(json.dumps({"sender": "client", "subscriptions": self.channels, "since": self.position}))

    def hear(self, payload):
        self.heard_at = self.crowd.loop.now
        if payload.startswith(_NUMBERED):
            self._deliver(payload)
        elif payload.startswith(_SUBSCRIBED):
            self._answered(json.loads(payload))
        elif payload.startswith(_CAUGHT_UP):
            self._caught_up(json.loads(payload))
        elif payload.startswith(_PONG):
            self._move(json.loads(payload)["id"])
            self.pong()
        else:
            # An answer that isn't expected, or a delivery that can't even be told for one.
            self.inbox.receive(payload)

    def _deliver(self, payload):
        id, _, rest = payload[len(_NUMBERED) :].partition(b'"')
        id = id.decode()
        if self._shown is not None:
            self._untrue("a delivery came ahead of the answer to its list")
        if note := self.inbox.receive(b'{"type":"notification"' + rest):
            self.crowd.ledger.ids.check(note, id, self.name)
            self.crowd.got += 1
            self.crowd.on_delivery(note)
        if place(id) <= self._place:
            self.crowd.ledger.tally.fault("disordered", f"{self.name} got {id} behind {self.position}")
        if self._missed is not None:
            self._missed += 1
            self.crowd.replayed += 1
        self._move(id)

    def _answered(self, answer):
        shown, self._shown = self._shown, None
        self.retries = 0
        is_resumed = answer.get("resumed")
        if not shown:
            if is_resumed is not None:
                self._untrue(f"it has shown no id, and was told {answer}")
            self.inbox.subscribed()
        elif is_resumed is True:
            self.crowd.resumed += 1
            if self.crowd.is_gap_expected or answer["id"] != shown:
                self._untrue(f"it has shown {shown}, and was told {answer}")
            self._following, self._missed = None, 0
            return
        else:
            self.crowd.gaps[answer.get("reason")] += 1
            if not self.crowd.is_gap_expected:
                self._untrue(f"it has shown {shown}, and was told {answer}")
            # What it has had was without gaps; from here on it is another life.
            self.inbox.close()
            self.inbox, self._following = self._following, None
            self.inbox.subscribed()
            self._place = 0
        self._move(answer["id"])
        self.be_ready()

    def _caught_up(self, answer):
        if self._missed is None or answer["missed"] != self._missed:
            self._untrue(f"it got {self._missed} that it had missed, and was told {answer}")
        self._missed = None
        self._move(answer["id"])
        if not self.is_ready:
            self.be_ready()

    def _move(self, id):
        """It has everything up to here."""
        if place(id) < self._place:
            self._untrue(f"it was told {id} behind {self.position}")
        self.position, self._place = id, max(self._place, place(id))

    def _untrue(self, text):
        self.crowd.ledger.tally.fault("untrue", f"{self.name}: {text}")


class ResumingCrowd(Crowd):
    member = Resumer

    def __init__(self, *crowd, **how):
        super().__init__(*crowd, **how)
        # How often somebody was told that it gets what it has missed, or for which reason not.
        self.resumed = self.replayed = 0
        self.gaps = collections.Counter()
        # The server has lost its history: who is told otherwise is told what isn't true.
        self.is_gap_expected = False


class PersistentPublisher(Publisher):
    """A publisher that gives each notification a key, and repeats what wasn't answered when it is back, in order, until
    all is. So nothing of it may be missing in the end, nor doubled."""

    def __init__(self, *publisher, **how):
        # What was sent on a connection that is gone, each as its text, note and whether it was sent before.
        self._again = collections.deque()
        # How often something was sent again, and how often that was known by its key.
        self.retried = self.repeated = 0
        super().__init__(*publisher, **how)

    @property
    def is_idle(self):
        return super().is_idle and not self._again

    def pump(self):
        line = self._line
        while self.is_up and len(self._in_flight) < self.in_flight_max and line.unsent < self.UNSENT_BYTES_MAX:
            if self._again:
                text, note, _ = self._again.popleft()
                is_again = True
                self.retried += 1
            elif self.left:
                self.left -= 1
                self.sent += 1
                size = self.size(self._dice) if callable(self.size) else self.size
                text, note = self.ledger.issue(self.name, self._dice.choice(self.channels), time.monotonic(), size)
                is_again = False
            else:
                return
            self._in_flight.append((text, note, is_again))
            line.say(f'{{"sender":"server","key":"{note.source} {note.order}","notification":{text}}}')
            if self._line is not line:
                return

    def answered(self, payload):
        answer = json.loads(payload)
        if answer.get("type") != "published":
            raise wire.Violation(f"a notification was answered {payload!r}")
        self._retries = 0
        _, note, is_again = self._in_flight.popleft()
        self.ledger.ids.check(note, answer["id"], "a receipt")
        if answer.get("repeated"):
            self.repeated += 1
            if not is_again:
                self.ledger.tally.fault("untrue", f"the first of {note} was answered {payload.decode()}")
        self.ledger.settle(note)
        self.answered_count += 1
        self.delivered += answer["delivered"]
        self.pump()

    def over(self):
        self._again.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        super().over()


class _Post(Stream):
    is_sent = False

    def __init__(self, publisher, body):
        self._publisher, self._body, self._answer = publisher, body.encode(), b""
        self.dial(publisher.loop, publisher.address)

    def on_connected(self):
        head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.send(f"{head}Content-Length: {len(self._body)}\r\n\r\n".encode() + self._body)
        self.is_sent = True

    def on_data(self, data):
        self._answer += data

    def on_end(self, error):
        head, _, body = self._answer.partition(b"\r\n\r\n")
        self._publisher.over(body if head.startswith(b"HTTP/1.1 200 ") else None)


class ArrayPublisher:
    """The same by HTTP, in arrays: one is kept as a whole or not at all."""

    LENGTH = 5
    is_up = True
    in_flight = 0

    def __init__(self, loop, ledger, address, name, channels, *, size=200):
        self.loop, self.ledger, self.address, self.name, self.channels, self.size = (
            loop, ledger, address, name, channels, size)
        self.left = self.answered_count = self.retried = self.repeated = self.lost = 0
        self._dice = random.Random(name)
        self._post, self._notes, self._body, self._is_again = None, [], "", False
        self._is_leaving = False

    @property
    def is_idle(self):
        return self.left == 0 and not self._notes

    @property
    def is_waiting(self):
        """A request has gone out, and has no answer yet."""
        return self._post is not None and self._post.is_sent

    def publish(self, count):
        """So many more notifications, or a few more than that."""
        self.left += count
        if not self._notes:
            self._begin()

    def _begin(self):
        self.left = max(0, self.left - self.LENGTH)
        issued = [
            self.ledger.issue(self.name, self._dice.choice(self.channels), time.monotonic(), self.size)
            for _ in range(self.LENGTH)
        ]
        self._notes = [note for _, note in issued]
        entries = [f'{{"key":"{note.source} {note.order}","notification":{text}}}' for text, note in issued]
        self._body, self._is_again = f"[{','.join(entries)}]", False
        self._send()

    def _send(self):
        if self._is_leaving:
            return
        try:
            self._post = _Post(self, self._body)
        except OSError:
            self.over(None)

    def over(self, body):
        """The answer has come, or won't."""
        self._post = None
        if body is None:
            self.retried += len(self._notes)
            self._is_again = True
            self.loop.later(0.05, self._send)
            return
        self.answered(json.loads(body))
        self._notes = []
        if self.left:
            self._begin()

    def answered(self, receipts):
        if len(receipts) != len(self._notes):
            raise wire.Violation(f"{len(self._notes)} notifications were answered {receipts}")
        repeated = [receipt.get("repeated", False) for receipt in receipts]
        places = [place(receipt["id"]) for receipt in receipts]
        if len(set(repeated)) > 1 or any(repeated) and not self._is_again:
            self.ledger.tally.fault("untrue", f"of an array was known: {repeated}")
        if places != list(range(places[0], places[0] + len(places))):
            self.ledger.tally.fault("untrue", f"an array is in the log at {places}")
        for note, receipt in zip(self._notes, receipts):
            self.ledger.ids.check(note, receipt["id"], "a receipt")
            self.ledger.settle(note)
        self.answered_count += len(receipts)
        self.repeated += sum(repeated)

    def leave(self):
        self.close()

    def close(self):
        self._is_leaving = True
        if self._post is not None:
            self._post.close()
