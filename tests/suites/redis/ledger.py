"""What was published, what Redis has had of it, and what each client must have got.

Knows no sockets. What Redis has had is read from there: a `Branch` is what a stream had from its beginning until it was
flushed or another took its place. What a client was told falls into stretches: one begins with its first list, with an
id that wasn't resumed from, or with a gap, and ends with the next of these. In each of them it must have got all that
matches of one branch between two places, in order, each once. Besides, what was acknowledged must be on a branch; what was
said not to be published must not; and what is still there must have come to each who was there, whatever was announced.
"""

import bisect
import collections
import dataclasses
import json

from database import place

SAMPLES_MAX = 8


class Note:
    """A notification."""

    __slots__ = ("by", "number", "channel", "issued_at", "acknowledged_at", "ids", "is_refused", "may_have_been")

    def __init__(self, by, number, channel, issued_at):
        self.by, self.number, self.channel, self.issued_at = by, number, channel, issued_at
        self.acknowledged_at = None
        # Whole ones, on the wire.
        self.ids = set()
        # What was said of it at last, as long as nothing else was.
        self.is_refused = self.may_have_been = False

    def __str__(self):
        return f"{self.by}'s {self.number} on {self.channel}"


@dataclasses.dataclass
class Tally:
    """What has come out."""

    acknowledged: int = 0
    delivered: int = 0
    refused: int = 0
    may_have_been: int = 0
    resumed: int = 0
    not_resumed: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    gaps: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # Deliveries that had come before a `"resumed":false`.
    again: int = 0
    # Faults.
    missing: int = 0
    doubled: int = 0
    disordered: int = 0
    revived: int = 0
    untrue: int = 0
    samples: list = dataclasses.field(default_factory=list)

    @property
    def faults(self):
        return self.missing + self.doubled + self.disordered + self.revived + self.untrue

    def fault(self, kind, text, count=1):
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{kind}: {text}")


class Stretch:
    """What a client got between two moments at which it was told that something may be missing."""

    __slots__ = ("start", "end", "got", "is_uncertain")

    def __init__(self, start, is_uncertain=False):
        # It has everything behind `start` up to `end`; `None`: behind whatever comes first, since it was told that
        # something may be missing, which may be right there.
        self.start = self.end = start
        # It wasn't resumed from what was shown.
        self.is_uncertain = is_uncertain
        self.got = []

    def reach(self, at):
        self.end = at


class Ledger:
    def __init__(self):
        self.tally = Tally()
        self.notes = {}
        # By place: what was there. The last is the current one.
        self.branches = [{}]
        # Each by channel, sorted, in the end.
        self._sorted = []
        # What is there in the end.
        self.kept = {}
        self._numbers = collections.Counter()

    def issue(self, by, channel, now):
        """The text of a notification that is about to be sent, and what it is known by."""
        number = self._numbers[by]
        self._numbers[by] += 1
        note = self.notes[by, number] = Note(by, number, channel, now)
        filler = f"{by}{number:x}." * (number % 30)
        return f'{{"channel":"{channel}","by":"{by}","n":{number},"text":"{filler}"}}', note

    def find(self, notification):
        """Whose this is, read as JSON; it must be whole."""
        note = self.notes.get((notification.get("by"), notification.get("n")))
        if note is None or notification["channel"] != note.channel:
            return None
        if notification["text"] != f"{note.by}{note.number:x}." * (note.number % 30):
            return None
        return note

    # What publishers are told.

    def acknowledge(self, note, id, now):
        """`id` is on the wire, or in the stream."""
        if note.acknowledged_at is not None:
            self.tally.fault("untrue", f"{note} was acknowledged twice")
        note.acknowledged_at = now
        note.is_refused = note.may_have_been = False
        self.tally.acknowledged += 1
        self.identify(note, id, "a receipt")

    def refuse(self, note, may_have_been):
        """It wasn't published, or may have been."""
        if may_have_been:
            self.tally.may_have_been += 1
        else:
            self.tally.refused += 1
        # What may have been once may have been whatever becomes of another try.
        note.may_have_been |= may_have_been
        note.is_refused = not note.may_have_been

    def identify(self, note, id, whom):
        if len(id.split("-")) == 3:
            note.ids.add(id)
            if len({place(other) for other in note.ids}) != len(note.ids):
                self.tally.fault("untrue", f"{whom} was told of another tag of {note}: {note.ids}")

    # What Redis has.

    def read(self, entries):
        """The current branch has these entries; they must be what was published."""
        branch, by_note = self.branches[-1], {}
        for at, fields in entries:
            if b"n" not in fields:
                continue
            note = self.find(json.loads(fields[b"n"])["notification"])
            if note is None:
                self.tally.fault("untrue", f"Redis has what nobody has published at {at}")
                continue
            if branch.setdefault(at, note) is not note:
                self.tally.fault("untrue", f"another entry stands at {at} of one branch")
            if by_note.setdefault(note, at) != at:
                self.tally.fault("doubled", f"Redis has {note} at {by_note[note]} and at {at}")

    def fork(self):
        """From here on another stream takes its place."""
        self.branches.append({})

    def close(self, entries):
        """The entries that are there in the end."""
        self.read(entries)
        self.kept = {at: self.branches[-1][at] for at, _ in entries if at in self.branches[-1]}
        for branch in self.branches:
            by_channel = collections.defaultdict(list)
            for one in sorted(branch.items(), key=lambda item: item[0]):
                by_channel[one[1].channel].append(one)
            self._sorted.append(by_channel)
        ever = {note for branch in self.branches for note in branch.values()}
        for note in self.notes.values():
            if note.acknowledged_at is not None and note not in ever:
                self.tally.fault("missing", f"{note} was acknowledged, and Redis has never had it")
            if note.is_refused and note in ever:
                self.tally.fault("revived", f"Redis has {note}, which was said not to be published")
            for id in note.ids:
                if not any(branch.get(place(id)) is note for branch in self.branches):
                    self.tally.fault("untrue", f"{note} is known as {id}, where Redis never had it")

    # What clients got.

    def check(self, name, channels, stretches, joined_at, uncertain_until):
        """All that a client got. What was under way before `uncertain_until` it needn't have, but where a stretch says
        so: it was told that it can't be told what it has missed."""
        seen, before = set(), set()
        for stretch in stretches:
            if stretch.is_uncertain:
                # The node that has told it so may be behind the one that it has come from: the ids tell.
                before |= seen
                seen = set()
            for at, note in stretch.got:
                if (at, note) in seen:
                    self.tally.fault("doubled", f"{name} got {note} at {at} again")
                self.tally.again += (at, note) in before
                seen.add((at, note))
                if note.is_refused:
                    self.tally.fault("revived", f"{name} got {note}, which was said not to be published")
            self._check_stretch(name, channels, stretch)
        got = {note for _, note in seen | before}
        late = [
            note
            for note in self.kept.values()
            if note.channel in channels and note.acknowledged_at is not None and note not in got
            and note.issued_at > max(joined_at, uncertain_until)
        ]
        if late:
            text = f"{name} lacks {len(late)} that Redis has, {late[0]} the first"
            self.tally.fault("missing", text, len(late))

    def _check_stretch(self, name, channels, stretch):
        got = stretch.got
        if not got and (stretch.start is None or stretch.end == stretch.start):
            return
        start = stretch.start if stretch.start is not None else (got[0][0][0], got[0][0][1] - 1)
        best = None
        for by_channel in self._sorted:
            due = []
            for channel in channels:
                ones = by_channel[channel]
                first = bisect.bisect_right(ones, start, key=lambda one: one[0])
                due += ones[first : bisect.bisect_right(ones, stretch.end, key=lambda one: one[0])]
            due.sort(key=lambda one: one[0])
            if due == got:
                return
            lacks, more = len(set(due) - set(got)), len(set(got) - set(due))
            if best is None or lacks + more < best[0] + best[1]:
                best = lacks, more, due
        lacks, more, due = best
        where = f"{name} between {start} and {stretch.end}"
        if lacks:
            first = next(one for one in due if one not in got)
            self.tally.fault("missing", f"{where} lacks {lacks}, {first[1]} at {first[0]} the first", lacks)
        if more:
            first = next(one for one in got if one not in due)
            self.tally.fault("untrue", f"{where} got {more} that are of another branch, {first[1]} at {first[0]} the first", more)
        if not lacks and not more:
            self.tally.fault("disordered", f"{where} got {len(got)} in another order")
