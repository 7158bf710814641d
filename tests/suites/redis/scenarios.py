"""What happens to Redis and to nodes, one function each."""

import time

from stage import Stage

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
FAR_MILLIS = 3_600_000


def kill_node(stage):
    """kill -9 of a node in the middle of a fan-out: its clients go on at the other, and nobody misses anything."""
    for number in range(3 * stage.times):
        stage.go_on(0.6)
        node = stage.nodes[number % 2]
        stage.burst()
        node.kill()
        stage.go_on(0.3)
        node.start()
    stage.go_on(0.6)
    row = stage.finish(f"{3 * stage.times} kills, {sum(p.repeated for p in stage.publishers[:4])} known by their keys")
    stage.expect_no_holes()
    stage.expect(row.tally.may_have_been > 0, "nothing was under way at any kill")
    return row


def kill_redis_aof(stage):
    """kill -9 of a Redis that writes each append to disk: all that it has acknowledged is there, and is delivered."""
    for _ in range(2 * stage.times):
        stage.go_on(0.6)

        def kill():
            stage.burst()
            stage.database.kill()
            stage.go_on(0.3)
            stage.database.start()

        stage.wait_until_all_are_told(kill)
    stage.go_on(0.6)
    row = stage.finish(f"{2 * stage.times} kills")
    row.note += f", {row.tally.again} had again behind a resumed:false"
    return row


kill_redis_aof.how = {"databases": (DURABLE,)}


def client_kill(stage):
    """Redis closes all connections to it: that costs nobody anything."""
    for _ in range(4 * stage.times):
        # A link that is lost again within a second is taken for bad, and the next waits.
        stage.go_on(1.2)
        stage.burst()
        stage.database.ask("CLIENT", "KILL", "TYPE", "normal")
    stage.go_on(0.5)
    row = stage.finish(f"{4 * stage.times} times")
    stage.expect_no_holes()
    stage.expect(row.tally.refused == 0, f"{row.tally.refused} were refused")
    connects = sum(figures["crieur_redis_connects_total"] for figures in stage.last_figures)
    stage.expect(connects >= 2 * (1 + 4 * stage.times), f"only {connects:.0f} connections")
    return row


def stop_3s(stage):
    """SIGSTOP of Redis for three seconds: publishers are refused, and nobody who stays misses anything."""
    for _ in range(stage.times):
        stage.go_on(0.5)
        stage.burst()
        stage.database.freeze()
        stage.go_on(3)
        stage.database.thaw()
        stage.wait_until_up()
        stage.go_on(0.5)
    row = stage.finish()
    # Who has an id that the other node hasn't read waits there for no longer than Redis may take.
    reasons = row.tally.not_resumed.keys() - {"unknown"}
    stage.expect(not row.tally.gaps and not reasons, f"there were gaps: {row.tally.gaps}, {row.tally.not_resumed}")
    stage.expect(row.tally.refused > 0, "nothing was refused")
    stage.expect(row.tally.may_have_been > 0, "nothing was on its way")
    return row


def flushall(stage):
    """All is gone, and something new begins."""
    for _ in range(2 * stage.times):
        stage.go_on(0.7)

        def flush():
            stage.burst()
            stage.ledger.read(stage.database.entries_and("FLUSHALL"))
            stage.ledger.fork()

        stage.wait_until_all_are_told(flush)
        stage.go_on(0.3)
    row = stage.finish()
    stage.expect(row.tally.refused == 0, f"{row.tally.refused} were refused")
    return row


def promote(stage):
    """A replica that has everything becomes the master."""
    replica = stage.databases[1]
    replica.follow(stage.database)
    stage.go_on(0.7)

    def fail_over():
        master = _still(stage)
        replica.have_all_of(master)
        stage.ledger.read(master.entries())
        _take_over(stage, replica)

    stage.wait_until_all_are_told(fail_over)
    stage.go_on(0.7)
    return stage.finish()


def promote_tail(stage, meanwhile=lambda stage: None, then=lambda stage: None):
    """A replica that lacks the end becomes the master: what it lacks is lost, and whoever may miss it is told."""
    replica = stage.databases[1]
    replica.follow(stage.database)
    stage.go_on(0.7)
    replica.lag()
    meanwhile(stage)
    stage.go_on(0.5)

    def fail_over():
        master = _still(stage)
        stage.ledger.read(master.entries())
        stage.ledger.fork()
        _take_over(stage, replica)
        then(stage)

    stage.wait_until_all_are_told(fail_over)
    stage.go_on(0.7)
    row = stage.finish()
    lost = len(stage.ledger.branches[0].keys() - stage.ledger.branches[1].keys())
    stage.expect(lost > 50, f"only {lost} were lost")
    row.note = f"{lost} lost"
    return row


def promote_ahead(stage):
    """The same; the ids of the new master lie ahead of those that were lost."""
    return promote_tail(stage, then=_leap)


def promote_behind(stage):
    """The same; they lie behind them."""
    return promote_tail(stage, meanwhile=_leap)


def _leap(stage):
    """From here on ids are those of an hour later."""
    stage.note(f"{time.time_ns() // 1_000_000 + FAR_MILLIS}-0")


def _still(stage):
    """The master, which takes nothing any more; so what it has now is all that it ever had."""
    stage.burst()
    stage.database.ask("CLIENT", "PAUSE", 20_000, "WRITE")
    return stage.database


def _take_over(stage, replica):
    """The master dies, and the replica takes its place."""
    stage.database.kill()
    replica.promote()
    stage.database = stage.stranger.database = replica


for scenario in (promote, promote_tail, promote_ahead, promote_behind):
    scenario.how = {"databases": ((), ())}


def oom(stage):
    """Redis has no memory for a while: publishers are told, and nothing of that is ever delivered."""
    for _ in range(2 * stage.times):
        stage.go_on(0.5)
        stage.burst()
        stage.database.ask("CONFIG", "SET", "maxmemory", 1)
        stage.go_on(0.7)
        stage.database.ask("CONFIG", "SET", "maxmemory", 0)
    stage.go_on(0.5)
    row = stage.finish()
    stage.expect_no_holes()
    stage.expect(row.tally.refused > 0, "nothing was refused")
    stage.expect(row.tally.may_have_been == 0, f"{row.tally.may_have_been} may have been taken")
    return row


def trim(stage):
    """A node that stands still while the stream is trimmed: its clients are told, those of the other aren't."""
    for _ in range(stage.times):
        stage.go_on(0.5)
        stage.nodes[1].freeze()
        stage.go_on(1.6)
        stage.ledger.read(stage.database.entries_and("XTRIM", "crieur", "MAXLEN", 100))
        stage.nodes[1].thaw()
        stage.wait_until(lambda: stage.ledger.tally.gaps["trimmed"] > 0, "somebody is told")
        stage.go_on(0.7)
    row = stage.finish()
    told = [figures["crieur_gaps_total"] for figures in stage.last_figures]
    stage.expect(told[0] == 0 and told[1] > 0, f"nodes have told {told} of gaps")
    stage.expect(not row.tally.gaps["lost"], "somebody was told of a loss")
    return row


ALL = {
    "kill-node": kill_node, "kill-redis-aof": kill_redis_aof, "client-kill": client_kill, "stop-3s": stop_3s,
    "flushall": flushall, "promote": promote, "promote-tail": promote_tail, "promote-ahead": promote_ahead,
    "promote-behind": promote_behind, "oom": oom, "trim": trim,
}


def play(name, is_full=False, **how):
    scenario = ALL[name]
    with Stage(name, is_full, **{**getattr(scenario, "how", {}), **how}) as stage:
        return scenario(stage)
