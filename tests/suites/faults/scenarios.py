"""The faults, one function each."""

import random
import signal
import subprocess

import harness
import resumes
from crowd import wire
from crowd.loop import Stream
from herd import Herd
from proxy import Cut, Delay, Fault, Proxy, Throttle
from stage import CHANNELS, Row, Stage, pair, raise_descriptor_limit

LOSS = 0.05


def delay(stage):
    """Each chunk through a proxy waits up to 0.15 s, on both ways."""
    proxy = Proxy(stage.loop, stage.server.address, lambda _: Delay(0.01, 0.15))
    direct = stage.crowd("direct", 40)
    late = stage.crowd("late", 60, address=proxy.address)
    stage.publisher("p0")
    stage.publisher("p1")
    stage.publish(1500 if stage.is_full else 300)
    stage.expect(proxy.delayed > 60, "nothing was delayed")
    stage.expect_nobody_was_cut_off(direct, late)
    row = stage.finish(f"{proxy.delayed} chunks delayed")
    proxy.close()
    return row


def throttle(stage):
    """A proxy passes 30 kB a second: what waits, waits in the server, within its limits."""
    proxy = Proxy(stage.loop, stage.server.address, lambda _: Throttle(30_000))
    direct = stage.crowd("direct", 40)
    slow = stage.crowd("slow", 30, address=proxy.address, receive_buffer=4096)
    stage.publisher("p0", size=700)
    stage.publisher("p1", size=300)
    stage.publish(1500 if stage.is_full else 300)
    row = stage.finish(f"{proxy.throttled} times held back")
    stage.expect(proxy.throttled > 30, "nobody was held back")
    stage.expect(not (slow.ends.keys() | direct.ends.keys()) - {1000}, "somebody was cut off")
    proxy.close()
    return row


def truncate(stage):
    """A proxy ends connections after some hundred bytes, in the middle of frames."""
    return _cut(stage, lambda dice: Cut(down=dice.randint(60, 8000)))


def reset(stage):
    """A proxy resets connections, in the middle of the upgrade, of a list and of deliveries."""

    def cut(dice):
        if dice.random() < 0.3:
            return Cut(up=dice.randint(1, 260), down=dice.randint(1, 8000), is_reset=True)
        return Cut(down=dice.randint(1, 8000), is_reset=True)

    return _cut(stage, cut)


def _cut(stage, cut):
    dice = random.Random(7)
    proxy = Proxy(stage.loop, stage.server.address, lambda _: Fault())
    direct = stage.crowd("direct", 40)
    unlucky = stage.crowd("unlucky", 60, address=proxy.address, returns=True)
    stage.publisher("p0")
    stage.publisher("p1", size=lambda dice: dice.choice((100, 300, 3000)))
    # Those that are there have a few kilobytes left; those that come get less than they want.
    proxy.fault_of = lambda _: cut(dice)
    for link in proxy.links:
        link.fault = cut(dice)
        link.server.way.left = dice.randint(1, 8000)
    cuts = 2000 if stage.is_full else 200
    stage.publish_until(lambda: proxy.cut >= cuts, f"{cuts} connections cut")
    proxy.heal()
    unlucky.wait_until_ready()
    stage.publish(100)
    stage.expect_nobody_was_cut_off(direct)
    row = stage.finish(f"{proxy.cut} connections cut")
    proxy.close()
    return row


def silent(stage):
    """A proxy passes nothing any more, and says nothing. The server takes them for dead, they the server."""
    proxy = Proxy(stage.loop, stage.server.address, lambda _: Fault())
    direct = stage.crowd("direct", 40)
    cut_off = stage.crowd("cut-off", 40, address=proxy.address, returns=True)
    stage.publisher("p0")
    stage.publish(50)
    proxy.silence()
    beat = cut_off.heartbeat(1, 3)
    dead = 0

    def all_are_dead():
        nonlocal dead
        dead = stage.figures()['crieur_sessions_closed_total{code="1006"}']
        return dead >= 40

    stage.publish_until(all_are_dead, "the server takes 40 for dead", pause=0.05)
    stage.loop.until(lambda: cut_off.ends["silent"] >= 40, "40 take the server for dead", 60)
    proxy.speak()
    cut_off.wait_until_ready()
    stage.wait_until_idle()
    beat.cancel()
    stage.publish(100)
    stage.expect_nobody_was_cut_off(direct)
    row = stage.finish(f"{dead:.0f} connections given up by both")
    proxy.close()
    return row


silent.flags = ["--ping-interval", "0.5", "--pong-timeout", "4", "--handshake-timeout", "4",
                "--close-timeout", "1"]


def loss(stage):
    """5 % of all packets are lost, on both ways (iptables, in a network namespace of its own)."""
    crowd = stage.crowd("crowd", 60)
    stage.publisher("p0")
    stage.publisher("p1", size=2000)
    stage.publish(1000 if stage.is_full else 150, seconds_max=180)
    stage.expect_nobody_was_cut_off(crowd)
    row = stage.finish()
    lost = _lost_packets()
    if lost < 20:
        row.failures.append(f"only {lost} packets were lost")
    row.note = f"{lost} packets lost"
    return row


def _lost_packets():
    listed = subprocess.run(["iptables", "-nvxL", "INPUT"], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[0]) for line in listed.splitlines() if "statistic" in line)


def enter_loss():
    """In a network namespace of its own already: loses packets from here on."""
    rule = ["-A", "INPUT", "-i", "lo", "-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", str(LOSS)]
    # Segments as on a network: on the loopback they are of 64 kB.
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "gso_max_segs", "1"], stderr=subprocess.DEVNULL)
    subprocess.run(["iptables", *rule, "-j", "DROP"], check=True)


def kill_clients(stage):
    """kill -9 of processes with 40 subscribers each, in the middle of a fan-out."""
    direct = stage.crowd("direct", 60)
    for _ in range(8 if stage.is_full else 3):
        stage.herds.append(Herd(stage.loop, stage.ledger, stage.server.address, 40, CHANNELS))
    for herd in stage.herds:
        herd.wait_until_ready()
    publisher = stage.publisher("p0")
    stage.publisher("p1", size=3000)
    in_the_middle = 0
    for herd in stage.herds:
        target = publisher.answered_count + 100
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        in_the_middle += publisher.in_flight
        herd.kill()
    stage.expect(in_the_middle > 0, "nothing was under way at any kill")
    stage.wait_until_idle()
    stage.publish(100)
    stage.expect_nobody_was_cut_off(direct)
    return stage.finish(f"{len(stage.herds)} processes killed")


def kill_server(stage):
    """kill -9 of the server in the middle of a fan-out. All come back with backoff; from then on they
    get everything again, and nothing twice."""
    crowd = stage.crowd("crowd", 200, returns=True)
    publisher = stage.publisher("p0")
    stage.publisher("p1", size=2000)
    kills = 10 if stage.is_full else 3
    in_the_middle = 0
    for _ in range(kills):
        target = publisher.answered_count + 100
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        in_the_middle += publisher.in_flight
        stage.server.kill()
        # They must see it, and come back to nothing at first.
        stage.loop.until(lambda: crowd.ready == 0, "all see the end")
        stage.loop.pause(0.1)
        stage.server.start()
        crowd.wait_until_ready()
        stage.wait_until_publishers_are_up()
        stage.publish(100)
    stage.expect(in_the_middle > 0, "nothing was under way at any kill")
    stage.expect(crowd.connects >= 200 * (kills + 1), "not all had to come back")
    lost = sum(publisher.lost for publisher in stage.publishers)
    return stage.finish(f"{kills} kills, {lost} notifications unanswered")


def restart(stage):
    """SIGTERM in the middle of a fan-out: all that was answered before arrives, then Close 1001; all come back."""
    crowd = stage.crowd("crowd", 200, returns=True)
    publisher = stage.publisher("p0")
    stage.publisher("p1", size=2000)
    restarts = 10 if stage.is_full else 2
    in_the_middle = 0
    for number in range(restarts):
        target = publisher.answered_count + 100
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        in_the_middle += publisher.in_flight
        for member in crowd.members:
            member.inbox.mark()
        stage.server.stop(stage.loop)
        stage.loop.until(lambda: crowd.ready == 0, "all see the end")
        stage.expect(crowd.ends[1001] == 200 * (number + 1), f"they ended with {dict(crowd.ends)}")
        stage.server.start()
        crowd.wait_until_ready()
        stage.wait_until_publishers_are_up()
        stage.publish(100)
    stage.expect(in_the_middle > 0, "nothing was under way at any stop")
    return stage.finish(f"{restarts} restarts, {crowd.ends[1001]} times 1001")


def freeze_server(stage):
    """SIGSTOP of the server for two seconds, in the middle of a fan-out; clients come meanwhile."""
    crowd = stage.crowd("crowd", 100)
    publisher = stage.publisher("p0")
    stage.publisher("p1", size=3000)
    for _ in range(5 if stage.is_full else 1):
        target = publisher.answered_count + 100
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        for each in stage.publishers:
            each.publish(200)
        stage.server.freeze()
        stage.loop.until(lambda: stage.server.state() == "T", "the server stands still")
        for number in range(20):
            crowd.join([CHANNELS[number % 10]])
        # What was on its way already comes still.
        stage.loop.pause(0.5)
        answered = publisher.answered_count
        stage.loop.pause(1.5)
        stage.expect(publisher.answered_count == answered, "it went on while it was stopped")
        stage.expect(publisher.in_flight > 0, "nothing was under way")
        stage.server.thaw()
        crowd.wait_until_ready()
        stage.wait_until_idle()
    stage.publish(100)
    stage.expect_nobody_was_cut_off(crowd)
    return stage.finish()


def freeze_clients(stage):
    """SIGSTOP of subscribers. The short-stopped get everything; the long-stopped Close 1013 behind a
    part without gaps; the others notice nothing."""
    direct = stage.crowd("direct", 40)
    short = Herd(stage.loop, stage.ledger, stage.server.address, 30, CHANNELS)
    long = Herd(stage.loop, stage.ledger, stage.server.address, 30, ["long"], receive_buffer=4096)
    stage.herds += [short, long]
    for herd in stage.herds:
        herd.wait_until_ready()
    stage.publisher("p0", size=500)
    stage.publish(50)
    short.signal(signal.SIGSTOP)
    stage.publish(200)
    short.signal(signal.SIGCONT)
    long.signal(signal.SIGSTOP)
    cut_off = 0

    def all_are_cut_off():
        nonlocal cut_off
        cut_off = stage.figures()["crieur_slow_consumers_total"]
        return cut_off >= 30

    stage.publisher("p1", channels=["long"], size=30_000)
    while not all_are_cut_off():
        # The kernel takes some megabytes for each.
        stage.publish(20)
        if stage.ledger.published > 5000:
            stage.expect(False, "the long-stopped are never cut off")
            break
    long.signal(signal.SIGCONT)
    stage.expect(set(short.report()) == {None}, "of the short-stopped somebody was cut off")
    codes = long.report()
    stage.expect(codes.count(1013) == 30, f"the long-stopped got {codes}")
    stage.expect_nobody_was_cut_off(direct)
    return stage.finish(f"{cut_off:.0f} cut off with 1013")


freeze_clients.flags = ["--send-queue-bytes", "65536", "--close-timeout", "60"]


def descriptors(stage):
    """No descriptor is left: those that are there are served, the others wait and get in when some leave."""
    first = stage.crowd("first", 60)
    stay = stage.crowd("stay", 40)
    stage.publisher("p0")
    before = stage.server.descriptors()
    stage.server.limit_descriptors(before + 5)
    late = stage.crowd("late", 0, returns=True)
    for number in range(50):
        late.join([CHANNELS[number % 10]])
    is_said = lambda: "accepting pauses" in stage.server.log.read_text()  # noqa: E731
    stage.loop.until(is_said, "the server runs out of descriptors")
    stage.publish(200)
    waited = len(late.members) - late.ready
    stage.expect(waited >= 45, f"only {waited} of 50 had to wait")
    first.leave()
    late.wait_until_ready()
    stage.publish(100)
    stage.expect(first.checked == 60, "of those that left somebody lacked its Pong")
    stage.expect_nobody_was_cut_off(stay)
    return stage.finish(f"{waited} waited")


def few_descriptors(stage):
    """Started with 160 descriptors: a client beyond them gets 503, and is let in when others leave."""
    first = stage.crowd("first", 40)
    stage.publisher("p0")
    late = stage.crowd("late", 0, returns=True)
    for number in range(60):
        late.join([CHANNELS[number % 10]])
    stage.loop.until(lambda: late.ready + late.refused >= 60 and late.refused, "somebody is refused")
    stage.publish(200)
    first.leave()
    late.wait_until_ready()
    stage.publish(100)
    stage.expect(not late.ends.keys() - {503}, f"the late ones ended with {dict(late.ends)}")
    stage.expect(first.checked == 40, "of those that left somebody lacked its Pong")
    return stage.finish(f"{late.refused} times 503")


few_descriptors.how = {"descriptors": 160}


def stuck_log(stage):
    """Nobody reads the pipe that the log goes to, and it says everything."""
    crowd = stage.crowd("crowd", 40)
    stage.publisher("p0")
    dropped = 0
    while dropped == 0 and stage.ledger.published < 100_000:
        stage.publish(1000)
        dropped = stage.figures()["crieur_log_lines_dropped_total"]
    stage.expect(dropped > 0, "every line was taken")
    stage.publish(2000 if stage.is_full else 200)
    stage.expect_nobody_was_cut_off(crowd)
    return stage.finish(f"{dropped:.0f} lines dropped")


stuck_log.flags = ["--log", "trace"]
stuck_log.how = {"is_log_stuck": True}


def hasty_publishers(stage):
    """Publishers that reset the connection right behind their message, whose every byte counts, and in the
    middle of one, which must not be heard of."""
    crowd = stage.crowd("crowd", 60)
    kept = stage.publisher("p0")
    whole, notes = 1000 if stage.is_full else 200, []
    dice = random.Random(3)
    for number in range(whole * 2):
        text, note = stage.ledger.issue("hasty", dice.choice(CHANNELS), stage.loop.now) if number % 2 else (
            '{"channel":"c1","text":"%s"}' % ("x" * 500), None)
        message = wire.upgrade() + wire.text(f'{{"sender":"server","notification":{text}}}')
        if note is None:
            message = message[: dice.randint(1, len(message) - 1)]
        _Hasty(stage.loop, stage.server.address, message)
        if note is not None:
            notes.append(note)
            # So they are handled in the order of the ledger.
            stage.loop.until(lambda: _Hasty.open == 0, "a message is sent")
            while stage.figures()['crieur_notifications_total{result="delivered"}'] < len(notes):
                stage.loop.turn(0.01)
            stage.ledger.settle(note)
    stage.publish(100)
    stage.expect(kept.lost == 0, "the kept publisher was cut off")
    stage.expect_nobody_was_cut_off(crowd)
    return stage.finish(f"{whole} whole, {whole} cut")


class _Hasty(Stream):
    open = 0

    def __init__(self, loop, address, message):
        self._message = message
        _Hasty.open += 1
        self.dial(loop, address)

    def on_connected(self):
        self.send(self._message)
        _Hasty.open -= 1
        self.reset()


def stampede(stage):
    """All connections are reset at once, and all are back at once; then the server is killed, and they
    come back with backoff."""
    count = 15_000 if stage.is_full else 1500
    if not raise_descriptor_limit(count + 200):
        return Row(stage.name, skipped=f"{count + 200} descriptors aren't allowed (ulimit -n)")
    crowd = stage.crowd(
        "crowd", count, returns=True, sources=[f"127.0.0.{number}" for number in range(2, 18)],
        channels_of=lambda number: [f"s{number % 50}", CHANNELS[number % 10]],
    )
    stage.publisher("p0")
    stage.publish(20)
    for member in crowd.members:
        member.abort(is_back_at_once=True)
    crowd.wait_until_ready(120)
    stage.publish(20)
    stage.server.kill()
    stage.loop.until(lambda: crowd.ready == 0, "all see the end")
    stage.server.start()
    crowd.wait_until_ready(120)
    stage.wait_until_publishers_are_up()
    stage.publish(20)
    return stage.finish(f"{count} came back twice")


# A crowd of 15,000 leaves its heap in pieces: 850 KiB were measured.
stampede.how = {"memory_left_kib_max": 1536}


def storm(stage):
    """All of it together: bad connections, processes killed, the server stopped and killed."""
    dice = random.Random(11)
    faults = (
        Fault, lambda: Delay(0, 0.1), lambda: Throttle(dice.randint(20_000, 200_000)),
        lambda: Cut(down=dice.randint(1, 20_000), is_reset=dice.random() < 0.5), lambda: Cut(up=dice.randint(1, 260)),
    )
    proxy = Proxy(stage.loop, stage.server.address, lambda _: dice.choice(faults)())
    direct = stage.crowd("direct", 60, returns=True)
    unlucky = stage.crowd("unlucky", 0, address=proxy.address, returns=True)
    for number in range(100):
        unlucky.join(pair(number))
    publisher = stage.publisher("p0")
    stage.publisher("p1", size=lambda dice: dice.choice((100, 300, 3000)))
    rounds = 10 if stage.is_full else 1
    for _ in range(rounds):
        for act in ("kill clients", "stop the server", "kill the server"):
            herd = Herd(stage.loop, stage.ledger, stage.server.address, 20, CHANNELS)
            stage.herds.append(herd)
            herd.wait_until_ready()
            target = publisher.answered_count + 300
            stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
            if act == "kill clients":
                herd.kill()
            elif act == "stop the server":
                stage.server.freeze()
                stage.loop.pause(0.5)
                stage.server.thaw()
            else:
                stage.server.kill()
                stage.loop.until(lambda: direct.ready == 0, "all see the end")
                stage.server.start()
                direct.wait_until_ready()
    proxy.heal()
    unlucky.wait_until_ready()
    stage.wait_until_publishers_are_up()
    stage.publish(100)
    stage.expect(proxy.cut > 20 and proxy.delayed > 20 and proxy.throttled > 20, "connections were too good")
    row = stage.finish(f"{proxy.cut} cut, {rounds} times killed and stopped")
    proxy.close()
    return row


ALL = {
    "delay": delay, "throttle": throttle, "truncate": truncate, "reset": reset, "silent": silent, "loss": loss,
    "kill-clients": kill_clients, "kill-server": kill_server, "restart": restart, "freeze-server": freeze_server,
    "freeze-clients": freeze_clients, "descriptors": descriptors, "few-descriptors": few_descriptors,
    "stuck-log": stuck_log, "hasty-publishers": hasty_publishers, "stampede": stampede,
    "storm": storm, **resumes.ALL,
}


def play(name, is_full, **how):
    """The row of a scenario, whatever becomes of it."""
    scenario = ALL[name]
    with Stage(name, is_full, *getattr(scenario, "flags", ()), **getattr(scenario, "how", {}), **how) as stage:
        try:
            return scenario(stage)
        except (harness.Failure, wire.Violation) as failure:
            failures = [*stage.failures, str(failure), *stage.ledger.tally.samples]
            return Row(name, stage.connections, stage.ledger.tally, failures=failures)
