"""Shows that each check finds what it is there to find: fed by hand, and with a server that seems
to have a defect, because a proxy that knows frames loses, doubles, swaps, misroutes or damages a delivery."""

import harness
import resumes_self_test
from crowd.ledger import Inbox, Ledger
from proxy import Breaker, Fault, Proxy
from stage import Stage, given_back


def run():
    found = [*by_hand(), *bounds(), *end_to_end(), *resumes_self_test.run()]
    for defect in found:
        print(f"found: {defect}")
    print(f"self-test: {len(found)} defects found")


def check(is_so, text):
    if not is_so:
        raise harness.Failure(f"self-test: {text}")


# The ledger, fed by hand.

ABSENT, OTHER = "c9", "c1"


def by_hand():
    """`deliver` does with what it is given what a server mustn't."""
    defects = {
        "missing": {
            "one in the middle": lambda texts: texts[:4] + texts[5:],
            "the first": lambda texts: texts[1:],
            "the last": lambda texts: texts[:-1],
            "all": lambda texts: [],
            "damaged": lambda texts: [*texts[:4], texts[4][:-3] + b"!" + texts[4][-2:], *texts[5:]],
        },
        "doubled": {
            "at once": lambda texts: [*texts[:4], texts[3], *texts[4:]],
            "later": lambda texts: [*texts, texts[0]],
        },
        "disordered": {
            "within a channel": lambda texts: [texts[0], texts[4], texts[2], *texts[3:4], *texts[5:], texts[1]],
            "across channels": lambda texts: [texts[1], texts[0], *texts[2:]],
        },
        "damaged": {
            "a byte": lambda texts: [*texts[:4], texts[4][:-3] + b"!" + texts[4][-2:], *texts[5:]],
            "not ours": lambda texts: [*texts, b'{"type":"notification","notification":{"channel":"c0"}}'],
            "cut": lambda texts: [*texts[:-1], texts[-1][:-1]],
        },
        "misrouted": {"another channel": lambda texts: [*texts, _of_another_channel(texts)]},
    }
    check(_deliver(lambda texts: texts).faults == 0, "a good server has a fault")
    for kind, ways in defects.items():
        for name, spoil in ways.items():
            tally = _deliver(spoil)
            check(getattr(tally, kind) > 0, f"{kind} ({name}) was not found: {tally}")
            yield f"{kind} ({name})"
    for name, (kind, tell) in _AROUND.items():
        ledger = Ledger()
        tell(ledger, Inbox(ledger, "a"))
        count = getattr(ledger.tally, kind) if kind else -ledger.tally.faults
        check(count > 0 or not kind and count == 0, f"{name}: {ledger.tally}")
        if kind:
            yield f"{kind} ({name})"


def _deliver(spoil):
    """Ten notifications on two channels, spoilt; and one on a third that is never for this one."""
    ledger = Ledger()
    inbox = Inbox(ledger, "a")
    inbox.subscribe(["c0", OTHER])
    inbox.subscribed()
    notes = [_issue(ledger, f"c{number % 2}") for number in range(10)]
    _deliver.absent = _issue(ledger, ABSENT)
    for text in spoil(notes):
        inbox.receive(text)
    inbox.mark()
    inbox.close()
    return ledger.tally


def _of_another_channel(_texts):
    return _deliver.absent


def _issue(ledger, channel, is_settled=True):
    text, note = ledger.issue("p", channel, 0)
    if is_settled:
        ledger.settle(note)
    return f'{{"type":"notification","notification":{text}}}'.encode()


def _before_subscribing(ledger, inbox):
    early = _issue(ledger, "c0")
    inbox.subscribe(["c0"])
    inbox.subscribed()
    inbox.receive(early)


def _before_the_answer(ledger, inbox):
    inbox.subscribe(["c0"])
    inbox.receive(_issue(ledger, "c0"))


def _after_leaving_a_channel(ledger, inbox):
    inbox.subscribe(["c0"])
    inbox.subscribed()
    inbox.subscribe(["c1"])
    inbox.subscribed()
    inbox.receive(_issue(ledger, "c0"))


def _missing_on_a_channel_that_is_left(ledger, inbox):
    inbox.subscribe(["c0"])
    inbox.subscribed()
    _issue(ledger, "c0")
    inbox.subscribe(["c1"])
    inbox.subscribed()


def _gap_before_the_end(ledger, inbox):
    inbox.subscribe(["c0"])
    inbox.subscribed()
    _issue(ledger, "c0")
    inbox.receive(_issue(ledger, "c0"))
    inbox.close()


def _cut_off(ledger, inbox):
    inbox.subscribe(["c0"])
    inbox.subscribed()
    inbox.receive(_issue(ledger, "c0"))
    _issue(ledger, "c0")
    inbox.mark()
    inbox.unmark()
    inbox.close()


def _under_way(ledger, inbox):
    _issue(ledger, "c0", is_settled=False)
    inbox.subscribe(["c0"])
    second = _issue(ledger, "c0", is_settled=False)
    inbox.subscribed()
    inbox.receive(second)
    inbox.receive(_issue(ledger, "c0"))
    inbox.mark()
    inbox.close()


# What must be found, and with no kind, what is right.
_AROUND = {
    "published before it subscribed": ("misrouted", _before_subscribing),
    "before the answer": ("misrouted", _before_the_answer),
    "after leaving a channel": ("misrouted", _after_leaving_a_channel),
    "on a channel that is left": ("missing", _missing_on_a_channel_that_is_left),
    "a gap before the end": ("missing", _gap_before_the_end),
    "cut off without a gap": (None, _cut_off),
    "under way while it subscribed": (None, _under_way),
}


# Memory and descriptors.


def bounds():
    check(not given_back((300, 7), (300 + 1024, 7), 1024), "what is allowed is refused")
    check(given_back((300, 7), (300 + 1025, 7), 1024), "memory that is left was not found")
    check(given_back((300, 7), (300, 8), 1024), "a descriptor that is left was not found")
    check(given_back((300, 7), (300, 6), 1024), "a descriptor too few was not found")
    return ["memory left", "a descriptor left", "a descriptor too few"]


# A real server, with a defect between it and its clients.


def end_to_end():
    defects = {"lose": "missing", "double": "doubled", "swap": "disordered", "misroute": "misrouted",
               "damage": "damaged", None: None}
    for defect, kind in defects.items():
        with _stage(f"self-test-{defect}") as stage:
            breaker = type("Defect", (Breaker,), {"defect": defect})
            proxy = Proxy(stage.loop, stage.server.address, lambda _: Fault(), link=breaker)
            stage.crowd("crowd", 50, address=proxy.address)
            stage.publisher("p0")
            stage.publish(200)
            row = stage.finish()
            proxy.close()
        check(breaker.seen > breaker.EVERY, f"only {breaker.seen} deliveries went through the proxy")
        if kind is None:
            check(not row.failures, f"without a defect: {row.failures}")
        else:
            check(getattr(row.tally, kind) > 0 and row.failures, f"the proxy's {defect} was not found: {row}")
            yield f"{defect} (a real server's)"
    yield from _ends()


def _ends():
    with _stage("self-test-held") as stage:
        stage.crowd("crowd", 5)
        stage.publisher("p0")
        stage.publish(20)
        # Not of the crowd, so it doesn't leave.
        held = Proxy(stage.loop, stage.server.address, lambda _: Fault())
        other = Stage.crowd(stage, "other", 1, address=held.address)
        stage.crowds.remove(other)
        row = stage.finish(seconds_max=1)
        check(any(text.startswith("descriptors") for text in row.failures), f"an open connection: {row.failures}")
    yield "a connection left"
    with _stage("self-test-cut") as stage:
        crowd = stage.crowd("crowd", 5)
        stage.publisher("p0")
        stage.publish(20)
        crowd.members[0].abort()
        row = stage.finish()
        check("4 of 5 of crowd were there at the end" in row.failures, f"a member cut off: {row.failures}")
    yield "a member cut off"
    with _stage("self-test-died") as stage:
        stage.crowd("crowd", 5)
        stage.publisher("p0")
        stage.publish(20)
        stage.server.kill()
        try:
            stage.finish(seconds_max=1)
        except (harness.Failure, OSError) as failure:
            check("exited" in str(failure), f"a server that died: {failure}")
        else:
            check(False, "a server that died was not found")
    yield "a server that died"


def _stage(name):
    return Stage(name, False)
