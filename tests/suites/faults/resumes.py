"""The faults across which nothing may be missed: clients come back with the id of what they had last, and publishers
repeat what wasn't acknowledged. One function each."""

import math
import random
import subprocess
import time

from crowd.loop import Rate
from crowd.resuming import ArrayPublisher
from stage import Row, history_folder, raise_descriptor_limit

HISTORY = {"history_bytes": 8 << 20}


def resume_kill(stage):
    """kill -9 of the server in the middle of a fan-out, its history in a directory. At some kills clients are still
    being caught up, at some the next server dies while it starts; some clients are away over several. Whatever
    anybody has seen is there afterwards."""
    crowd = stage.resuming_crowd("crowd", 100)
    away = stage.resuming_crowd("away", 20)
    publisher = stage.persistent_publisher("p0", in_flight_max=256)
    stage.persistent_publisher("p1", size=lambda dice: dice.choice((300, 2000, 5000)))
    arrays = stage.publisher("p2", kind=ArrayPublisher)
    dice = random.Random(5)
    kills = 100 if stage.is_full else 20
    in_the_middle = 0
    for number in range(kills):
        if number % 5 == 1:
            away.go_away()
        target = publisher.answered_count + 50
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        if number % 4 == 3:
            # An array is answered within a fraction of a millisecond: here it surely isn't.
            stage.server.freeze()
            stage.loop.until(lambda: stage.server.state() == "T", "the server stands still")
            arrays.publish(1)
            stage.loop.until(lambda: arrays.is_waiting, "an array is on its way")
        else:
            # It goes on for a moment, and nobody reads what it says.
            time.sleep(dice.choice((0, 0.0005, 0.002, 0.004)))
        in_the_middle += publisher.in_flight
        stage.server.kill()
        for _ in range(number % 3):
            stage.server.start_to_die(dice.uniform(0, 0.01))
        stage.server.start()
        if number % 5 == 4:
            away.come_back()
        if number % 2:
            crowd.wait_until_ready()
            stage.wait_until_publishers_are_up()
        else:
            stage.loop.until(lambda: publisher.is_up, "a publisher is back")
            stage.loop.pause(dice.uniform(0, 0.1))
    for each in (crowd, away):
        each.wait_until_ready()
    stage.wait_until_publishers_are_up()
    stage.publish(50)
    retried = sum(each.retried for each in stage.publishers)
    repeated = sum(each.repeated for each in stage.publishers)
    stage.expect(arrays.retried >= kills // 4, "no array was under way at a kill")
    segments = [segment.stat().st_size for segment in stage.history.glob("segment-*")]
    stage.expect(len(segments) == 2 and min(segments) > 0, f"the segments have not taken turns: {segments}")
    stage.expect(in_the_middle > 0 and retried > repeated, "nothing was under way at any kill")
    stage.expect(repeated > 0, "nothing was kept whose receipt was lost")
    stage.expect(crowd.resumed >= 100 * kills // 2, f"only {crowd.resumed} times somebody was resumed")
    stage.expect(away.resumed >= 20 * kills // 5, f"only {away.resumed} times somebody was resumed who had been away")
    stage.expect(crowd.replayed > 0 and away.replayed > 0, "nobody had missed anything")
    replayed = crowd.replayed + away.replayed
    return stage.finish(f"{kills} kills, {replayed} replayed, {retried} published again, {repeated} of them known")


# So little that its segments take turns, and twice what anybody misses.
resume_kill.how = {"history_bytes": 3 << 20}


def resume_freeze(stage):
    """SIGSTOP of the server for longer than its clients wait: they give it up, and try again in vain. When it goes
    on, they resume."""
    count = 200 if stage.is_full else 60
    stops = 5 if stage.is_full else 1
    crowd = stage.resuming_crowd("crowd", count)
    publisher = stage.persistent_publisher("p0")
    stage.persistent_publisher("p1", size=2000)
    beat = crowd.heartbeat(0.5, 1.5)
    for number in range(stops):
        target = publisher.answered_count + 100
        stage.publish_until(lambda: publisher.answered_count >= target, "a fan-out")
        for each in stage.publishers:
            each.publish(200)
        stage.server.freeze()
        stage.loop.until(lambda: stage.server.state() == "T", "the server stands still")
        given_up = lambda: crowd.ends["silent"] >= 2 * count * (number + 1)  # noqa: E731
        stage.loop.until(given_up, "all give it up twice", 60)
        stage.server.thaw()
        crowd.wait_until_ready()
        stage.wait_until_idle()
    beat.cancel()
    stage.publish(50)
    stage.expect(crowd.resumed >= count * stops, f"only {crowd.resumed} were resumed")
    stage.expect(crowd.replayed > 0, "nobody had missed anything")
    return stage.finish(f"{crowd.ends['silent']} times given up, {crowd.replayed} replayed")


resume_freeze.how = HISTORY


def resume_storm(stage):
    """All connections are reset at once, and all resume at once, twice, while 500 notifications a second go on."""
    count = 15_000 if stage.is_full else 1500
    if not raise_descriptor_limit(count + 200):
        return Row(stage.name, skipped=f"{count + 200} descriptors aren't allowed (ulimit -n)")
    channels = [f"s{number}" for number in range(500)]
    crowd = stage.resuming_crowd(
        "crowd", count, sources=[f"127.0.0.{number}" for number in range(2, 18)], seconds_max=120,
        channels_of=lambda number: [channels[number % 500], channels[number * 7 % 500]],
    )
    publisher = stage.persistent_publisher("p0", channels=channels)
    began = time.monotonic()
    rate = Rate(stage.loop, PER_SECOND, lambda: publisher.publish(1), stall_seconds_max=math.inf)
    stage.loop.pause(1)
    for _ in range(2):
        for member in crowd.members:
            member.abort(is_back_at_once=True)
        crowd.wait_until_ready(120)
        stage.loop.pause(1)
    seconds = time.monotonic() - began
    rate.stop()
    stage.wait_until_idle()
    figures = stage.figures()
    stage.expect(crowd.resumed >= 2 * count, f"only {crowd.resumed} were resumed")
    stage.expect(crowd.replayed > count // 10, f"only {crowd.replayed} were missed")
    stage.expect(figures['crieur_resumes_total{result="resumed"}'] >= crowd.resumed, "the server counts fewer resumes")
    stage.expect(figures["crieur_catching_up"] == 0, "the server thinks that somebody is being caught up")
    # The last stall of this process isn't made up for.
    stage.expect(publisher.sent > PER_SECOND * seconds * 0.8, f"only {publisher.sent} were published in {seconds:.1f} s")
    note = f"{crowd.resumed} resumed, {crowd.replayed} replayed, {publisher.sent / seconds:.0f} a second"
    return stage.finish(note)


PER_SECOND = 500
# A crowd of 15,000 leaves its heap in pieces.
resume_storm.how = {**HISTORY, "memory_left_kib_max": 2048}


def full_disk(stage):
    """The disk is full under the history. The server goes on, says so once and counts it; it still has all in
    memory. A later start doesn't take over what is on disk, however the server has ended, and can write again."""
    crowd = stage.resuming_crowd("crowd", 40)
    away = stage.resuming_crowd("away", 10)
    publisher = stage.persistent_publisher("p0", size=900)
    errors = lambda: stage.figures()["crieur_history_write_errors_total"]  # noqa: E731
    ends = [lambda: stage.server.kill(), lambda: stage.server.stop(stage.loop)]
    for number, end in enumerate(ends, 1):
        stage.expect(errors() == 0, "a write has failed while there was room")
        # As long as there is room, what was published outlives the server.
        stage.publish(50)
        _start_again(stage, stage.server.kill)
        # What they show then was on disk.
        away.go_away()
        filled = publisher.sent
        while not errors() and publisher.sent < filled + 4 * SMALL_BYTES // 900:
            stage.publish(20)
        stage.expect(errors() == 1, f"{errors():.0f} writes have failed")
        stage.publish(100)
        for member in crowd.members:
            member.abort(is_back_at_once=True)
        crowd.wait_until_ready()
        stage.publish(100)
        stage.expect(errors() == 1, f"later {errors():.0f} writes have failed")
        told = sum(crowd.gaps.values())
        stage.expect(told == 40 * (number - 1), f"in memory, too, something is missing: {dict(crowd.gaps)}")
        said = stage.server.log.read_text()
        for text, times in (("cannot write the history to disk", number), ("make the history on disk invalid", 0)):
            stage.expect(said.count(text) == times, f"`{text}` is {said.count(text)} times in the log, not {times}")
        for each in (crowd, away):
            each.is_gap_expected = True
        away.is_away = False
        _start_again(stage, end)
        for each in (crowd, away):
            each.is_gap_expected = False
            count = len(each.members) * number
            stage.expect(each.gaps == {"unknown": count}, f"{count} of {each.name} had to be told: {dict(each.gaps)}")
    stage.publish(50)
    return stage.finish(f"{crowd.gaps['unknown'] + away.gaps['unknown']} told of a gap, {crowd.resumed} resumed")


# Of the disk, or where none can be mounted, of each file; the log must fit too.
SMALL_BYTES = 256 * 1024
full_disk.how = HISTORY


def _start_again(stage, end):
    """Nothing is under way meanwhile."""
    end()
    stage.loop.until(lambda: not any(crowd.ready for crowd in stage.crowds), "all see the end")
    stage.server.start()
    for crowd in stage.crowds:
        crowd.wait_until_ready()
    stage.wait_until_publishers_are_up()


def enter_full_disk():
    """In a mount namespace of its own already: the directory of the history is a small disk from here on."""
    folder = history_folder("full-disk")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", folder], check=True)


ALL = {"resume-kill": resume_kill, "resume-freeze": resume_freeze, "resume-storm": resume_storm, "full-disk": full_disk}
