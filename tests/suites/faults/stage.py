"""What a scenario plays on: a server, crowds, publishers, the ledger; and what is asked of all of
them when it is over."""

import dataclasses
import resource
import time

import harness
from crowd.clients import Crowd, Publisher
from crowd.ledger import Ledger
from crowd.loop import Loop
from crowd.program import Program, figures
from crowd.resuming import PersistentPublisher, ResumingCrowd

CHANNELS = [f"c{number}" for number in range(10)]
# What may be left of a crowd, beside what a server that has just started has, and the history.
MEMORY_LEFT_KIB_MAX = 1024
# It is small where nobody comes back to it.
HISTORY_BYTES = 256 * 1024
GIVEN_BACK_SECONDS_MAX = 20


def pair(number):
    """The channels of a crowd's members: two each, so that all are had in different company."""
    return [CHANNELS[number % 10], CHANNELS[(number * 3 + 1 + number // 10) % 10]]


@dataclasses.dataclass
class Row:
    """What a scenario comes to."""

    name: str
    connections: int = 0
    tally: object = None
    memory_kib: tuple = (0, 0, 0)
    descriptors: tuple = (0, 0)
    seconds: float = 0
    note: str = ""
    failures: list = dataclasses.field(default_factory=list)
    skipped: str = ""


class Stage:
    """`full` are the long runs: more clients, more faults. With `history_bytes` there is so much of it, and it is
    kept in `history`, a directory."""

    def __init__(self, name, is_full, *flags, memory_left_kib_max=MEMORY_LEFT_KIB_MAX, history_bytes=0, **how):
        self.name, self.is_full = name, is_full
        self.loop, self.ledger = Loop(), Ledger()
        self.began = time.monotonic()
        self.failures = []
        self.crowds, self.publishers, self.herds = [], [], []
        self.connections = 0
        history_bytes_max = history_bytes or HISTORY_BYTES
        self.memory_left_kib_max = memory_left_kib_max + history_bytes_max // 1024
        folder = harness.target_dir() / "faults"
        self.history = history_folder(name)
        flags = [*flags, "--history-bytes", history_bytes_max]
        if history_bytes:
            clear(self.history)
            flags += ["--history-directory", self.history]
        self.server = Program(*flags, log=folder / f"{name}.log", **how)
        self.memory_before_kib = self.server.memory_kib()
        self.descriptors_before = self.server.descriptors()
        self.memory_peak_kib = self.memory_before_kib
        self.loop.every(0.2, self._look)

    def _look(self):
        if self.server.process.poll() is None:
            self.memory_peak_kib = max(self.memory_peak_kib, self.server.memory_kib())

    def crowd(self, name, count, *, channels_of=pair, address=None, kind=Crowd, seconds_max=60, **how):
        """A crowd of `count`, subscribed."""
        crowd = kind(self.loop, self.ledger, address or self.server.address, name, **how)
        self.crowds.append(crowd)
        crowd.gather(count, channels_of, seconds_max)
        return crowd

    def resuming_crowd(self, name, count, **how):
        """The same, of subscribers that show what they had last when they come back."""
        return self.crowd(name, count, kind=ResumingCrowd, returns=True, **how)

    def persistent_publisher(self, name="p0", **how):
        return self.publisher(name, kind=PersistentPublisher, **how)

    def publisher(self, name="p0", *, channels=CHANNELS, kind=Publisher, **how):
        publisher = kind(self.loop, self.ledger, self.server.publish_address, name, channels, **how)
        self.publishers.append(publisher)
        self.loop.until(lambda: publisher.is_up, f"publisher {name} connected")
        return publisher

    def wait_until_publishers_are_up(self):
        self.loop.until(lambda: all(publisher.is_up for publisher in self.publishers), "publishers are back")

    def publish(self, count, seconds_max=60):
        """So many by each publisher; all are answered when it returns."""
        for publisher in self.publishers:
            publisher.publish(count)
        self.wait_until_idle(seconds_max)

    def publish_until(self, condition, what, seconds_max=60, pause=0):
        """As many as it takes, with a pause between some."""
        again_at = 0

        def go_on():
            nonlocal again_at
            if self.loop.now >= again_at:
                again_at = self.loop.now + pause
                for publisher in self.publishers:
                    if publisher.left < 10:
                        publisher.publish(5 if pause else 50)
            return condition()

        self.loop.until(go_on, what, seconds_max)
        for publisher in self.publishers:
            publisher.left = 0

    def wait_until_idle(self, seconds_max=60):
        idle = lambda: all(publisher.is_idle for publisher in self.publishers)  # noqa: E731
        self.loop.until(idle, "everything published is answered", seconds_max)

    def expect(self, is_so, text):
        """What has to be so for the scenario to be worth anything."""
        if not is_so:
            self.failures.append(text)

    def expect_nobody_was_cut_off(self, *crowds):
        for crowd in crowds:
            if crowd.ends:
                self.failures.append(f"of {crowd.name}, which had no fault, were cut off: {dict(crowd.ends)}")

    def figures(self):
        return figures(self.loop, self.server.address)

    def finish(self, note="", seconds_max=GIVEN_BACK_SECONDS_MAX):
        """All check that nothing is missing and leave; then the server must be as it was."""
        self._look()
        self.connections += sum(crowd.connects for crowd in self.crowds)
        self.connections += sum(len(herd.inboxes) for herd in self.herds)
        for crowd in self.crowds:
            if crowd.is_leaving:
                continue
            crowd.leave()
            if crowd.checked != len(crowd.members):
                text = f"{crowd.checked} of {len(crowd.members)} of {crowd.name} were there at the end"
                self.failures.append(text)
        for publisher in self.publishers:
            publisher.leave()
        for herd in self.herds:
            herd.kill()
        self.server.expect_alive()
        after = self._wait_until_given_back(seconds_max)
        self.failures += given_back(
            (self.memory_before_kib, self.descriptors_before), after, self.memory_left_kib_max
        )
        self.server.end()
        tally = self.ledger.tally
        if not tally.got:
            self.failures.append("nothing was delivered at all")
        if tally.faults:
            self.failures += [f"{tally.faults} deliveries are wrong", *tally.samples]
        memory_peak_kib = max(self.memory_peak_kib, after[0])
        return Row(
            self.name, self.connections, tally,
            (self.memory_before_kib, memory_peak_kib, after[0]), (self.descriptors_before, after[1]),
            time.monotonic() - self.began, note, self.failures,
        )

    def _wait_until_given_back(self, seconds_max):
        before = self.memory_before_kib, self.descriptors_before
        deadline = time.monotonic() + seconds_max
        while True:
            after = self.server.memory_kib(), self.server.descriptors()
            if not given_back(before, after, self.memory_left_kib_max) or time.monotonic() > deadline:
                return after
            self.loop.turn()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Whatever has happened, nothing is left behind."""
        self.server.clean_up()
        for herd in self.herds:
            herd.kill()
        for crowd in self.crowds:
            crowd.is_leaving = True
            for member in crowd.members:
                if member.client is not None:
                    member.client.close()
        for publisher in self.publishers:
            publisher.close()
        self.loop.close()


def history_folder(name):
    return harness.target_dir() / "faults" / f"{name}-history"


def clear(folder):
    """Leaves the folder itself, which something may be mounted on."""
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()


def given_back(before, after, memory_left_kib_max):
    """What is wrong with memory and descriptors when all have gone."""
    wrong = []
    if after[0] > before[0] + memory_left_kib_max:
        wrong.append(f"memory: {after[0] - before[0]} KiB are left, allowed are {memory_left_kib_max}")
    if after[1] != before[1]:
        wrong.append(f"descriptors: {after[1]} are open, {before[1]} were")
    return wrong


def raise_descriptor_limit(count):
    """Whether there may be so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))
    except ValueError:
        # Only root raises the hard limit.
        return False
    return True
