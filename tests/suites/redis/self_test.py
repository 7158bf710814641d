"""Shows that each check finds what it is there to find: fed by hand, and with a stream that somebody spoils
behind the back of real nodes."""

import json

import harness
from ledger import Ledger, Stretch
from stage import CHANNELS, Stage


def run():
    found = [*by_hand(), *of_clients(), *end_to_end()]
    for defect in found:
        print(f"found: {defect}")
    print(f"self-test: {len(found)} defects found")


def check(is_so, text):
    if not is_so:
        raise harness.Failure(f"self-test: {text}")


# The ledger, fed by hand.


class _Played:
    """Ten notifications, of which the first six are on a branch that was left at the fourth, and what a client got: those
    six, a gap, and the last four."""

    def __init__(self):
        self.ledger = Ledger()
        self.notes = [self.ledger.issue("p", "c0", number) for number in range(10)]
        self.first = {number: self.entry(number) for number in range(6)}
        self.second = {number: self.entry(number) for number in [0, 1, 2, 3, 6, 7, 8, 9]}
        self.acknowledged = list(range(10))
        self.stretches = [self.stretch((0, 0), range(6)), self.stretch(None, range(6, 10))]
        self.uncertain_until = -1

    def entry(self, number):
        return (number + 1, 0), {b"n": f'{{"notification":{self.notes[number][0]}}}'.encode()}

    def stretch(self, start, numbers):
        stretch = Stretch(start)
        for number in numbers:
            stretch.got.append(((number + 1, 0), self.notes[number][1]))
            stretch.reach((number + 1, 0))
        return stretch

    def tally(self):
        for number in self.acknowledged:
            self.ledger.acknowledge(self.notes[number][1], f"{number + 1}-0-0123456789abcdef", number)
        self.ledger.read(self.first.values())
        self.ledger.fork()
        self.ledger.close(self.second.values())
        self.ledger.check("a", ["c0"], self.stretches, -1, self.uncertain_until)
        return self.ledger.tally


def by_hand():
    check(_Played().tally().faults == 0, f"a good server has a fault: {_Played().tally()}")
    for name, (kind, spoil) in _DEFECTS.items():
        played = _Played()
        spoil(played)
        tally = played.tally()
        check(getattr(tally, kind) > 0, f"{kind} ({name}) was not found: {tally}")
        yield f"{kind} ({name})"
    played = _Played()
    # It came back when the second branch had two more, and was told that it can't be told what it has missed.
    played.stretches[1] = played.stretch((8, 0), [8, 9])
    played.uncertain_until = 7
    check(played.tally().faults == 0, "what was announced was taken for a fault")


def _lacks(stretch, index):
    def spoil(played):
        del played.stretches[stretch].got[index]

    return spoil




def _refuse(number):
    def spoil(played):
        played.acknowledged.remove(number)
        played.ledger.refuse(played.notes[number][1], False)

    return spoil


def _merge(played):
    """The gap isn't told."""
    first, second = played.stretches
    first.got += second.got
    first.reach(second.end)
    played.stretches.pop()


_DEFECTS = {
    "one in the middle": ("missing", _lacks(0, 2)),
    "the oldest": ("missing", _lacks(0, 0)),
    "the newest": ("missing", _lacks(0, -1)),
    "the first behind a gap, which Redis has": ("missing", _lacks(1, 0)),
    "one behind a gap": ("missing", _lacks(1, 1)),
    "a gap that isn't told": ("untrue", _merge),
    "acknowledged, and Redis never had it": ("missing", lambda played: played.second.pop(8)),
    "twice": ("doubled", lambda played: played.stretches[0].got.insert(2, played.stretches[0].got[1])),
    "again behind a gap": ("doubled", lambda played: played.stretches[1].got.insert(0, played.stretches[0].got[0])),
    "twice in Redis": ("doubled", lambda played: played.second.update({99: ((99, 0), played.entry(8)[1])})),
    "two change places": ("disordered", lambda played: played.stretches[0].got.reverse()),
    "what was left for good comes behind the gap": (
        "untrue", lambda played: played.stretches[1].got.insert(0, ((6, 1), played.notes[5][1]))),
    "refused, and in Redis": ("revived", _refuse(8)),
    "of nobody": ("untrue", lambda played: played.second.update({99: ((99, 0), {b"n": b'{"notification":{"by":"x","n":1}}'})})),
    "one id for two": ("untrue", lambda played: played.ledger.identify(played.notes[1][1], "3-0-0123456789abcdef", "b")),
    "two tags of one": ("untrue", lambda played: played.ledger.identify(played.notes[1][1], "2-0-fedcba9876543210", "b")),
    "acknowledged twice": ("untrue", lambda played: played.acknowledged.append(3)),
}


# A client, fed by hand.


class _Deaf:
    """A connection on which nothing goes out."""

    def say(self, message):
        pass


def of_clients():
    from people import Resumer

    class Client(Resumer):
        def connect(self, stay=False):
            self._line = _Deaf()

    def played(spoil):
        ledger = Ledger()
        notes = [ledger.issue("p", "c0", number) for number in range(5)]
        told = lambda number: {"id": f"{number}-0-0123456789abcdef"}  # noqa: E731
        texts = [
            {"type": "subscribed", **told(1)},
            {"type": "notification", **told(2), "notification": json.loads(notes[1][0])},
            None,
            {"type": "subscribed", **told(2), "resumed": True},
            {"type": "notification", **told(3), "notification": json.loads(notes[2][0])},
            {"type": "caught-up", **told(3), "missed": 1},
            {"type": "notification", **told(4), "notification": json.loads(notes[3][0])},
        ]
        class_loop = type("Clock", (), {"now": 0})()
        client = Client(class_loop, ledger, [None], "a", ["c0"])
        client.ask()
        for text in spoil(texts):
            if text is None:
                client._forget()
                client.ask()
            else:
                client.hear(text)
        return ledger.tally

    check(played(lambda texts: texts).faults == 0, f"a good server has a fault: {played(lambda texts: texts)}")
    defects = {
        "ahead of the answer": lambda texts: [*texts[:3], texts[4], texts[3], *texts[5:]],
        "a wrong count": lambda texts: [*texts[:4], {**texts[5], "missed": 2}, *texts[6:]],
        "another id than was shown": lambda texts: [*texts[:3], {**texts[3], "id": texts[0]["id"]}, *texts[4:]],
        "another channel": lambda texts: [
            texts[0], {**texts[1], "notification": {**texts[1]["notification"], "channel": "c1"}}, *texts[2:]],
        "damaged": lambda texts: [
            texts[0], {**texts[1], "notification": {**texts[1]["notification"], "text": "?"}}, *texts[2:]],
        "without an id": lambda texts: [texts[0], {**texts[1], "id": None}, *texts[2:]],
        "resumed though nothing was shown": lambda texts: [{**texts[0], "resumed": True}, *texts[1:]],
    }
    for name, spoil in defects.items():
        check(played(spoil).untrue > 0, f"untrue ({name}) was not found")
        yield f"untrue ({name})"


# Real nodes, whose stream somebody spoils.


def end_to_end():
    def remove(stage):
        """The newest few are gone from Redis ahead of a node that stands still."""
        stage.nodes[1].freeze()
        stage.go_on(0.5)
        entries = stage.database.entries()
        stage.ledger.read(entries)
        for (millis, sequence), _ in entries[-20:-10]:
            stage.database.ask("XDEL", "crieur", f"{millis}-{sequence}")
        stage.nodes[1].thaw()

    def repeat(stage):
        """Somebody publishes again what was published."""
        stage.database.ask("XADD", "crieur", "*", "n", stage.database.entries()[-1][1][b"n"])

    def revive(stage):
        """Somebody publishes what was refused."""
        stage.database.ask("CONFIG", "SET", "maxmemory", 1)
        refused = lambda: [  # noqa: E731
            note for note in stage.ledger.notes.values() if note.is_refused and note.by in ("p2", "p3")
        ]
        stage.wait_until(refused, "something is refused")
        stage.database.ask("CONFIG", "SET", "maxmemory", 0)
        note = refused()[0]
        text = f"{note.by}{note.number:x}." * (note.number % 30)
        body = f'{{"channel":"{note.channel}","by":"{note.by}","n":{note.number},"text":"{text}"}}'
        stage.database.ask("XADD", "crieur", "*", "n", f'{{"notification":{body}}}')

    def invent(stage):
        """Somebody publishes what nobody has."""
        body = f'{{"channel":"{CHANNELS[0]}","by":"p0","n":0,"text":"?"}}'
        stage.database.ask("XADD", "crieur", "*", "n", f'{{"notification":{body}}}')

    for name, (kind, spoil) in {
        "none": (None, lambda stage: None),
        "removed ahead of a node": ("missing", remove),
        "published again": ("doubled", repeat),
        "published though refused": ("revived", revive),
        "published by nobody": ("untrue", invent),
    }.items():
        with Stage("self-test", clients=60) as stage:
            stage.go_on(0.5)
            spoil(stage)
            stage.go_on(0.5)
            row = stage.finish()
        if kind is None:
            check(not row.failures, f"without a defect: {row.failures}")
        else:
            check(getattr(row.tally, kind) > 0 and row.failures, f"{name}: was not found: {row}")
            yield f"{kind} ({name}, with real nodes)"
