"""Shows that the checks of what is missed across connections find what they are there to find: fed by hand,
with a proxy that spoils deliveries, and with a history that somebody has cut, removed or put back while the
server was down."""

import json
import shutil

import harness
import resumes
from crowd.ledger import Ledger
from crowd.loop import Loop
from crowd.resuming import ArrayPublisher, PersistentPublisher, Resumer, ResumingCrowd
from proxy import Breaker, Fault, Proxy
from stage import Stage

GENERATION = "0123456789abcdef"


def run():
    return [*by_hand(), *end_to_end(), *between_starts()]


def check(is_so, text):
    if not is_so:
        raise harness.Failure(f"self-test: {text}")


# A subscriber, fed by hand.


def by_hand():
    check(_resume(lambda texts: texts).faults == 0, f"a good server has a fault: {_resume(lambda texts: texts)}")
    # What a server sends in place of the answer, two that were missed, `caught-up`, two more and a Pong.
    defects = {
        "the oldest is missing": ("missing", lambda texts: [texts[0], texts[2], _caught_up(4, 1), *texts[4:]]),
        "the newest is missing": ("missing", lambda texts: [*texts[:2], _caught_up(4, 1), *texts[4:]]),
        "one was had already": (
            "doubled", lambda texts: [texts[0], _note(2), *texts[1:3], _caught_up(4, 3), *texts[4:]]),
        "one comes twice": ("doubled", lambda texts: [*texts[:3], texts[2], _caught_up(4, 3), *texts[4:]]),
        "live ahead of the backlog": (
            "disordered", lambda texts: [texts[0], texts[4], *texts[1:3], _caught_up(4, 3), *texts[5:]]),
        "of another publisher ahead": ("disordered", lambda texts: [texts[0], texts[2], texts[1], *texts[3:]]),
        "ahead of the answer": ("untrue", lambda texts: [texts[1], texts[0], *texts[2:]]),
        "a wrong count": ("untrue", lambda texts: [*texts[:3], _caught_up(4, 3), *texts[4:]]),
        "an older position": ("untrue", lambda texts: [*texts[:3], _caught_up(1, 2), *texts[4:]]),
        "caught up twice": ("untrue", lambda texts: [*texts[:4], _caught_up(4, 0), *texts[4:]]),
        "another id than the receipt's": ("untrue", lambda texts: [*texts[:5], _note(6, told=7), texts[6]]),
        "two with one id": ("untrue", lambda texts: [*texts[:4], _note(5, told=4), *texts[5:]]),
        "another id than was shown": ("untrue", lambda texts: [_subscribed(1, resumed=True), *texts[1:]]),
        "told of a gap": ("untrue", lambda texts: [_subscribed(4, resumed=False, reason="expired"), *texts[4:]]),
        "not told whether it resumes": ("untrue", lambda texts: [_subscribed(4), *texts[4:]]),
    }
    for name, (kind, spoil) in defects.items():
        tally = _resume(spoil)
        check(getattr(tally, kind) > 0, f"{kind} ({name}) was not found: {tally}")
        yield f"{kind} ({name})"
    told = lambda texts: [_subscribed(4, resumed=False, reason="unknown"), *texts[4:]]  # noqa: E731
    check(_resume(told, is_gap_expected=True).faults == 0, "a gap that must be told was not allowed")
    check(_resume(lambda texts: texts, is_gap_expected=True).untrue > 0, "a gap that isn't told was not found")
    yield "untrue (a gap that isn't told)"
    receipts = [{"delivered": 1, "id": _id(1), "repeated": True}, {"delivered": 1, "id": _id(1)}]
    for receipt, name in zip(receipts, ("a first one is called a repetition", "two receipts with one id")):
        check(_publish(receipt).untrue > 0, f"{name}: was not found")
        yield f"untrue ({name})"
    arrays = {
        "a half of an array was known": ([{}, {}, *[{"repeated": True}] * 3], [1, 2, 3, 4, 5]),
        "an array has a gap": ([{}] * 5, [1, 2, 4, 5, 6]),
        "an array is out of order": ([{}] * 5, [1, 3, 2, 4, 5]),
    }
    check(_publish_array([{}] * 5, [1, 2, 3, 4, 5]).untrue == 0, "a good array has a fault")
    for name, answer in arrays.items():
        check(_publish_array(*answer).untrue > 0, f"{name}: was not found")
        yield f"untrue ({name})"


def _id(position):
    return f"{GENERATION}-{position}"


def _subscribed(position, **told):
    return json.dumps({"type": "subscribed", "id": _id(position), **told}, separators=(",", ":")).encode()


def _caught_up(position, missed):
    return f'{{"type":"caught-up","id":"{_id(position)}","missed":{missed}}}'.encode()


def _note(position, told=None):
    """The one at `position`, perhaps with the id of another."""
    return f'{{"type":"notification","id":"{_id(told or position)}","notification":{_note.texts[position]}}}'.encode()


class _Deaf:
    """A connection on which nothing goes out."""

    reason = b""
    unsent = 0

    def say(self, message):
        pass

    send = say

    def leave(self):
        pass


class _Connected(PersistentPublisher):
    """A publisher whose connection is such a one."""

    is_up = True

    def _connect(self):
        self._line = _Deaf()


def _resume(spoil, is_gap_expected=False):
    """Six notifications of two publishers, of which two come, two are missed and two come again."""
    ledger = Ledger()
    crowd = ResumingCrowd(Loop(), ledger, None, "crowd", returns=True)
    crowd.is_gap_expected = is_gap_expected
    member = Resumer(crowd, "a", ["c0"])
    _connect(member)
    member.hear(_subscribed(0))
    _note.texts = {}
    for position in range(1, 7):
        _note.texts[position], note = ledger.issue(f"p{position % 2}", "c0", 0)
        ledger.ids.check(note, _id(position), "a receipt")
        ledger.settle(note)
        if position == 2:
            member.hear(_note(1))
            member.hear(_note(2))
            member.over(None)
        if position == 4:
            # What comes behind is live if it is told of a gap.
            _connect(member)
            settled = member._following
    check(settled is not None, "nothing was shown")
    for text in spoil([
        _subscribed(2, resumed=True), _note(3), _note(4), _caught_up(4, 2), _note(5), _note(6),
        f'{{"type":"pong","id":"{_id(6)}"}}'.encode(),
    ]):
        member.hear(text)
    member.inbox.mark()
    crowd.is_leaving = True
    member.over(1000)
    crowd.loop.close()
    return ledger.tally


def _connect(member):
    member.open_inbox()
    member.client = _Deaf()
    member.ask()


def _publish(receipt):
    """Two notifications, of which the first gets this receipt in place of its own."""
    ledger = Ledger()
    publisher = _Connected(None, ledger, None, "p", ["c0"])
    publisher.publish(2)
    for answer in (receipt, {"delivered": 1, "id": _id(1 if "repeated" not in receipt else 2)}):
        publisher.answered(json.dumps({"type": "published", **answer}).encode())
    return ledger.tally


class _Unsent(ArrayPublisher):
    def _send(self):
        self._is_again = True


def _publish_array(receipts, places):
    ledger = Ledger()
    publisher = _Unsent(None, ledger, None, "p", ["c0"])
    publisher.publish(1)
    publisher.answered([{"delivered": 1, "id": _id(place), **receipt} for receipt, place in zip(receipts, places)])
    return ledger.tally


# A real server, with a defect between it and its clients.


def end_to_end():
    defects = {"lose": "missing", "double": "doubled", "swap": "disordered", "misroute": "misrouted",
               "damage": "damaged", "renumber": "untrue", None: None}
    for defect, kind in defects.items():
        with Stage(f"self-test-resume-{defect}", False, **resumes.HISTORY) as stage:
            breaker = type("Defect", (Breaker,), {"defect": defect})
            proxy = Proxy(stage.loop, stage.server.address, lambda _: Fault(), link=breaker)
            crowd = stage.resuming_crowd("crowd", 50, address=proxy.address)
            stage.persistent_publisher("p0")
            for _ in range(4):
                stage.publish(50)
                crowd.go_away()
                stage.publish(50)
                crowd.come_back()
            row = stage.finish()
            proxy.close()
        check(breaker.seen > breaker.EVERY, f"only {breaker.seen} deliveries went through the proxy")
        if kind is None:
            check(not row.failures, f"without a defect: {row.failures}")
        else:
            check(getattr(row.tally, kind) > 0 and row.failures, f"the proxy's {defect} was not found: {row}")
            yield f"{defect} (a real server's, to clients that resume)"


# A real server whose history isn't what it was.


def between_starts():
    def cut(folder):
        """The newest records are gone, as if what was delivered had not been written ahead."""
        newest = max(folder.glob("segment-*"), key=lambda file: file.stat().st_mtime_ns)
        with newest.open("r+b") as segment:
            segment.truncate(max(0, newest.stat().st_size - 4000))

    def remove(folder):
        for file in folder.glob("segment-*"):
            file.unlink()

    for name, spoil in {"its tail is cut off": cut, "it is gone": remove}.items():
        row = _play(resumes.resume_kill, spoil)
        check(row.tally.untrue > 0, f"a history, {name}: was not found: {row.failures}")
        yield f"a history after a kill: {name}"
    kept = resumes.history_folder("self-test-kept")

    def put_back(folder):
        """What was there before the disk was full comes back, as if it had not been made invalid."""
        size = sum(file.stat().st_size for file in folder.glob("segment-*"))
        if size > 1000:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
        else:
            for file in kept.iterdir():
                shutil.copy(file, folder)

    row = _play(resumes.full_disk, put_back, file_bytes=resumes.SMALL_BYTES)
    check(row.tally.untrue > 0, f"a history that should have been invalid was not found: {row.failures}")
    yield "a history that is taken over after its disk was full"


def _play(scenario, spoil, **how):
    with Stage(f"self-test-{scenario.__name__}", False, **scenario.how, **how) as stage:
        stage.server.before_start = lambda: spoil(stage.history)
        return scenario(stage)
