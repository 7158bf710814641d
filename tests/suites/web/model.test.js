// Random lives of an app: its client against a server whose rules (docs/protocol.md, section 6) are written
// out here, over a network that breaks anywhere. At each moment the app has everything up to its client's
// position, and whenever all is quiet it has everything.
//
//     SEED=17 node --test model.test.js      one life again
//     SECONDS=60 node --test model.test.js   as many as fit

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crieur } from '@crieur/client';
import { Clock, PING, fakeWebSocket, settle } from './fakes.js';

const LIVES = 1_500;
const STEPS = 120;
const CHANNELS = ['a', 'b', 'c'];

/** Numbers that a seed repeats (mulberry32). */
function randomness(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit) => Math.floor(next() * limit);
  return { below, chance: (share) => next() < share, of: (list) => list[below(list.length)] };
}

/** What the API has: for each channel, the place of each row among all that was ever published. */
class Database {
  rows = { a: [], b: [], c: [] };
  count = 0;
  add(channel) {
    this.count += 1;
    this.rows[channel].push(this.count);
    return this.count;
  }
}

/** One server after the other, at one address. */
class Server {
  connections = new Map();
  /** Of each id that was ever given, how much had been published. */
  reach = new Map();
  isOld = false;

  constructor(database, random) {
    this.database = database;
    this.random = random;
    this.forget();
  }

  /** Begins a history that knows nothing of those before. */
  forget() {
    this.generation = (this.generation ?? 0) + 1;
    /** Behind the first, which stands for the beginning, each is a notification. */
    this.entries = [this.entry(null)];
    this.oldest = 0;
  }

  entry(channel) {
    // Nobody can tell from two of them which comes first.
    const id = `${this.generation}.${this.random.below(1e9).toString(36)}.${this.reach.size}`;
    this.reach.set(id, this.database.count);
    return { id, channel, row: this.database.count };
  }

  get newest() {
    return this.entries.at(-1).id;
  }

  connectionOf(socket) {
    if (!this.connections.has(socket)) {
      this.connections.set(socket, { socket, read: 0, out: [], list: [], hasIds: false, replay: null });
    }
    return this.connections.get(socket);
  }

  /** Handles what has come from a client, up to a list that has to wait for a replay. */
  read(connection) {
    const { socket } = connection;
    while (connection.read < socket.sent.length) {
      const text = socket.sent[connection.read];
      const message = JSON.parse(text);
      if (text !== PING && connection.replay !== null && message.since === undefined) return;
      connection.read += 1;
      if (text === PING) {
        const id = connection.replay === null ? this.newest : this.entries[connection.replay.next - 1].id;
        connection.out.push({ type: 'pong', ...(connection.hasIds && { id }) });
      } else {
        this.subscribe(connection, message);
      }
    }
  }

  subscribe(connection, { subscriptions, since }) {
    if (subscriptions.includes('refused')) {
      connection.out.push({ type: 'error', error: { code: 'invalid-subscription', detail: 'refused' } });
      return;
    }
    const answer = { type: 'subscribed', subscriptions: subscriptions.length, heartbeat: 25 };
    connection.list = subscriptions;
    if (this.isOld) {
      connection.out.push(answer);
      return;
    }
    connection.hasIds ||= since !== undefined;
    if (connection.hasIds) answer.id = this.newest;
    if (since) {
      const place = this.entries.findIndex(({ id }) => id === since);
      // It is enough that what comes behind is there.
      answer.resumed = place !== -1 && place + 1 >= this.oldest;
      if (answer.resumed) answer.id = since;
      else answer.reason = place === -1 ? 'unknown' : 'expired';
      connection.replay = answer.resumed ? { next: place + 1, missed: 0 } : null;
    }
    connection.out.push(answer);
  }

  /** Looks at some of what a client has missed. */
  advance(connection, count) {
    const { replay } = connection;
    for (; replay !== null && count > 0; count -= 1) {
      if (replay.next === this.entries.length) {
        connection.out.push({ type: 'caught-up', id: this.newest, missed: replay.missed });
        connection.replay = null;
        return;
      }
      const entry = this.entries[replay.next];
      replay.next += 1;
      if (!connection.list.includes(entry.channel)) continue;
      replay.missed += 1;
      this.deliver(connection, entry);
    }
  }

  deliver(connection, { id, channel, row }) {
    const notification = { channel, row };
    connection.out.push({ type: 'notification', ...(connection.hasIds && { id }), notification });
  }

  publish(channel, { except = null } = {}) {
    const row = this.database.add(channel);
    const entry = this.isOld ? { channel, row } : this.entry(channel);
    if (!this.isOld) this.entries.push(entry);
    for (const connection of this.connections.values()) {
      if (connection !== except && connection.replay === null && connection.list.includes(channel)) this.deliver(connection, entry);
    }
  }

  /** What isn't kept is for those who are there. */
  mention(channel) {
    for (const { replay, list, out } of this.connections.values()) {
      if (replay === null && list.includes(channel)) out.push({ type: 'notification', notification: { channel, row: null } });
    }
  }

  /** Lets the oldest leave the history; clients that have yet to get one are cut off. */
  expire(count) {
    this.oldest = Math.min(this.oldest + count, this.entries.length);
    for (const { socket, replay } of [...this.connections.values()]) {
      if (replay !== null && replay.next < this.oldest) this.cut(socket, 1013);
    }
  }

  cut(socket, code = 1006) {
    this.connections.delete(socket);
    if (socket.closed === null) socket.end(code);
  }
}

/** An app that follows the one rule: load at each `subscribed` that isn't resumed. */
class App {
  constructor(database, random, Socket) {
    Object.assign(this, { database, random, Socket });
    this.saved = { since: null, list: null, has: { a: new Set(), b: new Set(), c: new Set() }, got: new Set(), last: {} };
    this.begin();
  }

  /** A cold start with what was saved. */
  begin() {
    const { since, list, has, got, last } = this.saved;
    this.client?.close();
    this.has = Object.fromEntries(CHANNELS.map((channel) => [channel, new Set(has[channel])]));
    this.got = new Set(got);
    this.last = { ...last };
    this.isOrdered = true;
    this.loads = [];
    this.inForce = null;
    const client = new Crieur('ws://test/', { WebSocket: this.Socket, since });
    this.client = client;
    client.on('notification', ({ notification: { channel, row } }) => {
      if (row === null) return;
      // The client lets no mistake of a handler through.
      if (this.got.has(row)) this.fault ??= `${channel} ${row} came twice`;
      if (this.isOrdered && row < this.last[channel]) this.fault ??= `${channel} ${row} came behind ${this.last[channel]}`;
      this.got.add(row);
      this.last[channel] = row;
      this.has[channel].add(row);
    });
    // Lists that are under way may still bring what was lost.
    client.on('gap', () => (this.isOrdered = false));
    client.on('status', ({ status }) => {
      if (status !== 'waiting' || this.isOrdered) return;
      this.isOrdered = true;
      this.last = {};
    });
    client.on('subscribed', ({ list, isResumed }) => {
      this.inForce = list;
      if (isResumed) return;
      // What the API knows at this moment; the answer may be long on its way.
      this.loads.push(list.map((channel) => [channel, [...this.database.rows[channel]]]));
      if (this.random.chance(0.7)) this.load();
    });
    client.on('error', ({ code }) => {
      if (code !== 'invalid-subscription') this.fault ??= code;
    });
    if (list !== null) client.subscribe(list);
  }

  load() {
    for (const [channel, rows] of this.loads.splice(0).flat()) {
      for (const row of rows) this.has[channel].add(row);
    }
  }

  /**
   * Saves what it has, if it has all of it and nothing behind the place `reach` of its position. A position
   * is one of a list.
   */
  save(reach) {
    if ([...this.got].some((row) => row > reach)) return;
    if (this.loads.length > 0 || !this.client.isSubscribed || !this.inForce?.length) return;
    const has = Object.fromEntries(CHANNELS.map((channel) => [channel, new Set(this.has[channel])]));
    this.saved = { since: this.client.position, list: this.inForce, has, got: new Set(this.got), last: { ...this.last } };
  }

  /** All rows of what is in force, up to the place `reach`, are here. */
  check(reach, what) {
    assert.equal(this.fault, undefined, what);
    if (!this.client.isSubscribed || this.loads.length > 0) return;
    for (const channel of this.inForce) {
      for (const row of this.database.rows[channel]) {
        assert.ok(row > reach || this.has[channel].has(row), `${what}: ${channel} ${row} is missing, position ${this.client.position}`);
      }
    }
  }
}

async function live(seed, { fixedList }) {
  const random = randomness(seed);
  const clock = new Clock();
  const Socket = fakeWebSocket();
  const database = new Database();
  const server = new Server(database, random);
  Math.random = () => random.below(1e6) / 1e6;
  const app = new App(database, random, Socket);
  const counts = { resumed: 0, gaps: 0 };
  const watched = new Set();
  const randomList = () => (fixedList ? ['a', 'b'] : CHANNELS.filter(() => random.chance(0.5)));

  const connection = () => {
    const socket = Socket.last;
    return socket === undefined || socket.closed !== null || !socket.isOpen || !server.connections.has(socket) ? null : server.connectionOf(socket);
  };
  const receive = (count) => {
    const from = connection();
    while (from !== null && count-- > 0 && from.out.length > 0 && from.socket.closed === null) from.socket.receive(from.out.shift());
  };
  const open = () => {
    const socket = Socket.last;
    if (socket === undefined || socket.closed !== null || socket.isOpen || socket.isOver) return;
    server.connectionOf(socket);
    socket.open();
  };
  const cut = () => {
    const socket = Socket.last;
    if (socket === undefined || socket.closed !== null || socket.isOver) return;
    socket.isOver = true;
    server.cut(socket);
  };
  const steps = [
    [30, () => server.publish(random.of(CHANNELS))],
    [4, () => server.mention(random.of(CHANNELS))],
    [25, () => connection() && server.read(connection())],
    [20, () => connection() && server.advance(connection(), 1 + random.below(4))],
    [30, () => receive(1 + random.below(4))],
    [10, () => app.client.wake()],
    [15, open],
    [6, cut],
    [10, () => app.load()],
    [fixedList ? 0 : 8, () => void app.client.subscribe(randomList())],
    [fixedList ? 0 : 2, () => void app.client.subscribe(['refused'])],
    [5, () => app.save(server.reach.get(app.client.position))],
    [2, () => app.begin()],
    [3, () => server.expire(1 + random.below(5))],
    [2, () => restart({ forgets: random.chance(0.4), isOld: random.chance(0.15) })],
    [2, lose],
    [6, () => clock.pass(random.below(20_000))],
    [4, quiet],
  ];
  function restart({ forgets, isOld }) {
    for (const socket of [...server.connections.keys()]) {
      socket.isOver = true;
      server.cut(socket);
    }
    server.isOld = isOld;
    if (forgets || isOld) server.forget();
  }
  /** Something is lost on the way to a client that is connected, which is told so. */
  function lose() {
    const to = connection();
    if (to === null || !to.hasIds || to.replay !== null) return;
    for (let count = random.below(3); count >= 0; count -= 1) server.publish(random.of(CHANNELS), { except: to });
    to.out.push({ type: 'gap', id: server.newest, reason: 'lost' });
  }
  /** Everything arrives, and nothing more happens. */
  async function quiet() {
    for (let round = 0; round < 40; round += 1) {
      if (app.client.status === 'waiting') await clock.pass(30_000);
      else await settle();
      open();
      if (connection() === null) continue;
      server.read(connection());
      server.advance(connection(), 1_000);
      receive(1_000);
    }
    assert.ok(app.client.isSubscribed || app.client.status !== 'online', 'it is subscribed when all is quiet');
    app.check(Infinity, 'all is quiet');
  }

  app.client.subscribe(fixedList ? ['a', 'b'] : randomList());
  await settle();
  const total = steps.reduce((sum, [weight]) => sum + weight, 0);
  for (let step = 0; step < STEPS; step += 1) {
    let choice = random.below(total);
    const [, act] = steps.find(([weight]) => (choice -= weight) < 0);
    await act();
    await Promise.resolve();
    if (!watched.has(app.client)) {
      watched.add(app.client);
      app.client.on('resumed', () => (counts.resumed += 1));
      app.client.on('gap', () => (counts.gaps += 1));
    }
    const { position } = app.client;
    if (position !== null) app.check(server.reach.get(position), `step ${step}`);
  }
  await quiet();
  app.client.close();
  assert.equal(clock.pending, 0);
  clock.restore();
  return counts;
}

test('an app that follows the rule has everything, once and in order', async () => {
  const { SEED, SECONDS } = process.env;
  const until = SECONDS === undefined ? Infinity : performance.now() + Number(SECONDS) * 1000;
  const first = Number(SEED ?? 1);
  const lives = SEED !== undefined ? 1 : SECONDS !== undefined ? Infinity : LIVES;
  const sums = { resumed: 0, gaps: 0 };
  let seed = first;
  for (; seed < first + lives && performance.now() < until; seed += 1) {
    try {
      const counts = await live(seed, { fixedList: seed % 4 === 0 });
      for (const name of Object.keys(sums)) sums[name] += counts[name];
    } catch (error) {
      throw new Error(`SEED=${seed}`, { cause: error });
    }
  }
  console.log(`web: ${seed - first} lives of an app, ${sums.resumed} resumed, ${sums.gaps} gaps, nothing missing, doubled or out of order`);
});
