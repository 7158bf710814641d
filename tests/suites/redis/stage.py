"""What a scenario plays on: Redis, nodes, clients that come back, publishers; and what is asked of all of them when it
is over."""

import dataclasses
import random
import time

import harness
from crowd.loop import Loop, Rate, Stream
from crowd.program import Program, figures
from database import Database
from ledger import Ledger
from people import Publisher, Resumer, Stranger

CLIENTS = 200
CHANNELS = [f"c{number}" for number in range(20)]
# By each of the five.
PER_SECOND = 50
# Connections that are lost in a second, whatever else happens.
LOST_PER_SECOND = 20
NODES = 2
SECONDS_MAX = 60


@dataclasses.dataclass
class Row:
    """What a scenario comes to."""

    name: str
    tally: object
    seconds: float
    note: str = ""
    failures: list = dataclasses.field(default_factory=list)


class _Question(Stream):
    """GET; `then` gets the body."""

    def __init__(self, loop, address, path, then):
        self._data, self._then = b"", then
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        self.dial(loop, address)

    def on_connected(self):
        self.send(self._request)

    def on_data(self, data):
        self._data += data

    def on_end(self, error):
        self._then(self._data.partition(b"\r\n\r\n")[2])


class Stage:
    """`databases` says what flags each Redis has; nodes know all of them, and begin with the first. With `is_full` all
    takes longer and happens more often."""

    def __init__(self, name, is_full=False, *, databases=((),), clients=CLIENTS):
        self.name, self.is_full = name, is_full
        self.began = time.monotonic()
        self.loop, self.ledger = Loop(), Ledger()
        self.failures = []
        self.databases, self.nodes = [], []
        self._rates = []
        try:
            self._begin(databases, clients)
        except BaseException:
            self.clean_up()
            raise

    def _begin(self, databases, clients):
        for number, flags in enumerate(databases):
            self.databases.append(Database(f"{self.name}-{number}", *flags))
        self.database = self.databases[0]
        urls = [word for database in self.databases for word in ("--redis", database.url)]
        for number in range(NODES):
            log = harness.target_dir() / "redis" / f"{self.name}-node-{number}.log"
            self.nodes.append(Program(*urls, "--redis-timeout", "1", log=log))
        addresses = [node.address for node in self.nodes]
        self.clients = []
        for number in range(clients):
            channels = [CHANNELS[number % 20], CHANNELS[(number * 3 + 1 + number // 20) % 20]]
            channels = sorted(set(channels))
            self.clients.append(
                Resumer(self.loop, self.ledger, addresses, f"client-{number}", channels, first=number % NODES)
            )
        self.publishers = [
            Publisher(
                self.loop, self.ledger, addresses, f"p{number}", CHANNELS, has_keys=number < 2, first=number % NODES
            )
            for number in range(4)
        ]
        self.stranger = Stranger(self.loop, self.ledger, self.database, "stranger", CHANNELS)
        self.publishers.append(self.stranger)
        self.wait_until(lambda: all(client.is_ready for client in self.clients), "all are subscribed")
        self.wait_until(lambda: all(publisher.is_up for publisher in self.publishers), "all can publish")
        self._rates = [Rate(self.loop, PER_SECOND, publisher.publish) for publisher in self.publishers]
        self._rates.append(Rate(self.loop, LOST_PER_SECOND, self._lose))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clean_up()

    def clean_up(self):
        for node in self.nodes:
            node.clean_up()
        for database in self.databases:
            database.clean_up()
        self.loop.close()

    def _lose(self):
        client = random.choice(self.clients)
        if client.is_ready:
            client.abort()

    @property
    def times(self):
        """How often something is done."""
        return 10 if self.is_full else 1

    def go_on(self, seconds):
        """All publish and come and go for a while."""
        self.loop.pause(seconds)

    def wait_until(self, condition, what, seconds_max=SECONDS_MAX):
        self.loop.until(condition, f"{self.name}: {what}", seconds_max)

    def expect(self, is_so, text):
        """What has to be so for the scenario to be worth anything, or to be right."""
        if not is_so:
            self.failures.append(text)

    def expect_no_holes(self):
        tally = self.ledger.tally
        told = dict(tally.gaps), dict(tally.not_resumed)
        self.expect(not any(told), f"nothing could be missing, but clients were told of gaps {told[0]}, not resumed {told[1]}")

    def burst(self):
        """Much is under way when this returns."""
        for publisher in self.publishers:
            publisher.publish(50)
        self.loop.pause(0.003)

    def wait_until_all_are_told(self, act):
        """Does what takes something away; then all clients have to hear that something may be missing."""
        before = [client.told for client in self.clients]
        act()
        told = lambda: all(client.told > count for client, count in zip(self.clients, before))  # noqa: E731
        self.wait_until(told, "all are told that something may be missing", 30)

    def figures(self, number):
        return figures(self.loop, self.nodes[number].address)

    def wait_until_up(self):
        """All nodes can publish again."""
        for number in range(NODES):
            self.wait_until(lambda: self.figures(number)["crieur_redis_up"] == 1, f"node {number} is up")

    def positions(self):
        found = []
        for node in self.nodes:
            _Question(self.loop, node.address, "/position", found.append)
        self.wait_until(lambda: len(found) == len(self.nodes), "positions")
        return found

    def note(self, at=None):
        """Publishes one by XADD, where it is told."""
        text, note = self.ledger.issue("test", CHANNELS[0], self.loop.now)
        id = self.database.ask("XADD", "crieur", at or "*", "n", f'{{"notification":{text}}}')
        self.ledger.acknowledge(note, id.decode(), self.loop.now)

    def rest(self):
        """Nobody publishes any more, and nobody is cut off."""
        for rate in self._rates:
            rate.stop()

    def finish(self, note=""):
        """All have what they must have, and nothing else."""
        self.rest()
        self.wait_until(lambda: all(publisher.is_idle for publisher in self.publishers), "all that was published is answered")
        self.note()
        self.wait_until(lambda: all(client.is_ready for client in self.clients), "all are back")
        newest = self.database.entries()[-1][0]
        at = f'{{"id":"{newest[0]}-{newest[1]}-'.encode()
        self.wait_until(lambda: all(one.startswith(at) for one in self.positions()), "all nodes have read all")
        for client in self.clients:
            client.mark()
        self.wait_until(lambda: not any(client.is_marked for client in self.clients), "all have all")
        self.ledger.close(self.database.entries())
        self.last_figures = [self.figures(number) for number in range(NODES)]
        everybody = [*self.clients, *self.publishers]
        for each in everybody:
            each.leave()
        self.wait_until(lambda: all(each.is_gone for each in everybody), "all are gone")
        for node in self.nodes:
            node.end()
        tally = self.ledger.tally
        self.expect(tally.acknowledged > 0 and tally.delivered > 0, "nothing was delivered at all")
        self.expect(tally.resumed + sum(tally.not_resumed.values()) > 0, "nobody came back")
        if tally.faults:
            self.failures += [f"{tally.faults} faults", *tally.samples]
        return Row(self.name, tally, time.monotonic() - self.began, note, self.failures)
