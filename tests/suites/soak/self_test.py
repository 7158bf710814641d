"""Shows that the soak finds growth, and attackers that are answered wrongly. That it finds deliveries that go
astray is shown by tests/suites/faults/run --self-test: the ledger is the same."""

import random

import harness
import report
from attackers import Binary, Forger, Oversize, Siege, Silence, Unmasked
from crowd.loop import Loop
from crowd.program import Program


def run():
    found = [*growth(), *attacks()]
    for defect in found:
        print(f"found: {defect}")
    print(f"self-test: {len(found)} defects found")


def check(is_so, text):
    if not is_so:
        raise harness.Failure(f"self-test: {text}")


def growth():
    dice = random.Random(1)

    def samples(kib_per_second=0.0, spare_per_second=0.0, seconds=60):
        """As a run leaves them: memory that goes up and down by 200 KiB, beside what grows."""
        return [
            report.Sample(second, int(800 + dice.uniform(-200, 200) + kib_per_second * second), 400,
                          int(spare_per_second * second), 400, 0, 10, 0, [])
            for second in range(1, seconds + 1)
        ]

    def wrong(**how):
        return report.growth(samples(**how), 15)[0]

    check(not wrong(), f"what is steady was taken for growth: {wrong()}")
    check(not wrong(seconds=600), "what is steady for ten minutes was taken for growth")
    check("memory" in str(wrong(kib_per_second=50)), "50 KiB a second were not found in a minute")
    check("memory" in str(wrong(kib_per_second=3, seconds=600)), "3 KiB a second were not found in ten minutes")
    check("descriptors" in str(wrong(spare_per_second=0.1)), "a descriptor every ten seconds was not found")
    check("samples" in str(wrong(seconds=20)), "that there are too few samples was not found")
    return ["growth in a minute", "growth in ten", "descriptors", "too few samples"]


def attacks():
    """Answers that aren't those that were expected."""
    loop = Loop()
    program = Program("--handshake-timeout", "1", log=harness.target_dir() / "soak" / "self-test.log")
    try:
        # Here the attacker is local, and may publish.
        wrong = ((Forger, Forger.expected), (Unmasked, {1009}), (Oversize, {1002}), (Binary, {1008}), (Silence, {431}))
        for kind, expected in wrong:
            siege = Siege(loop, program.address, ["c"])
            siege.open = 1
            type(kind.__name__, (kind,), {"expected": expected})(siege)
            loop.until(lambda: siege.open == 0, "an attacker is answered", 60)
            check(len(siege.unexpected) == 1, f"{kind.__name__}: {siege.outcomes}")
            yield f"{kind.__name__} answered wrongly"
    finally:
        program.clean_up()
        loop.close()
