// Many clients, and a server with a history on disk that is killed again and again under them while
// notifications flow. The clients' clock runs fast, so that what takes minutes takes seconds.
//
// The publisher does as the protocol says: what got no answer is published again with the same key. So
// everything is acknowledged in the end, and has to come exactly once, wherever the server died.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Crieur } from '@crieur/client';
import { Link, Publisher, Server, temporaryFolder, until } from './server.js';

const CLIENTS = 200;
const RESTARTS = 20;
const CHANGING_CLIENTS = 50;
const DOUBLE_RESTARTS = 3;
const SPEED = 4;
/** What a connection has to live before it counts, with something to spare. */
const STABLE_MS = 5_500;
/** How often something is to be published. What was due while the server was away is published at once behind it. */
const PUBLISH_MS = 4;

const real = { setTimeout: globalThis.setTimeout, now: Date.now, fetch: globalThis.fetch };
const began = real.now();
const pause = (ms) => new Promise((resolve) => real.setTimeout(resolve, ms));

test(`${CLIENTS} clients survive ${RESTARTS} restarts, and miss nothing`, async (t) => {
  const server = await Server.start(t, '--history-directory', temporaryFolder(t));
  hurry(t);
  // What was missed comes on the client's own connection, and from nowhere else.
  globalThis.fetch = () => assert.fail('something was fetched');
  const clients = Array.from({ length: CLIENTS }, (_, number) =>
    subscriber(t, server, ['all', { package: 'p', page: 'q', filters: { values: { half: [number % 2] } } }]),
  );
  await Promise.all(clients.map(({ answer }) => answer));
  const link = await Link.to(t, server);
  const publisher = new KeyedPublisher(link);
  publisher.keepPublishing((serial) => ({ package: 'p', page: 'q', filters: { values: { half: serial % 2 } }, serial }));

  const spreads = [];
  for (let round = 1; round <= RESTARTS; round += 1) {
    await pause(STABLE_MS / SPEED);
    if (round % 2 === 0) {
      // Dies between the delivery and the answer: the publisher doesn't know that this one was taken.
      link.stall();
      const isDelivered = () => clients.some(({ got }) => got.at(-1) === publisher.published.length - 1);
      await until(() => publisher.isWaiting && isDelivered(), 'one is delivered, and not answered');
    }
    const killedAt = await restart(server, clients);
    link.cut();
    await allAreBack(server, clients);
    spreads.push(clients.map(({ onlineAt }) => onlineAt - killedAt).sort((a, b) => a - b));
  }
  await publishTheLast(publisher, clients);

  clients.forEach(({ got, gaps, errors, subscribed }, number) => {
    const wanted = publisher.published.filter(({ channel, serial }) => channel === 'all' || serial % 2 === number % 2);
    assert.deepEqual(got, serialsOf(wanted));
    assert.deepEqual([gaps, errors], [[], []]);
    assert.deepEqual(subscribed.map(({ isResumed }) => isResumed), subscribed.map((_, at) => at > 0));
    assert.ok(subscribed.length > RESTARTS);
  });
  const missed = clients.reduce((sum, client) => sum + client.missed, 0);
  assert.ok(missed > CLIENTS, `only ${missed} were missed: this shows little`);
  report(spreads);
  const { published, unanswered, repeated } = publisher;
  assert.ok(repeated > 0, 'the server had none of these before: this shows nothing of the keys');
  console.log(
    `web: each client got its own of ${published.length} notifications exactly once and in order, ${missed} of all from the ` +
      `history; ${unanswered} were published again, ${repeated} of which the server had already`,
  );
});

test(`${CHANGING_CLIENTS} clients that change their lists meanwhile miss nothing either`, async (t) => {
  const server = await Server.start(t, '--history-directory', temporaryFolder(t));
  hurry(t);
  const publisher = new KeyedPublisher(server);
  const topics = ['a', 'b', 'c', 'd'];
  const clients = Array.from({ length: CHANGING_CLIENTS }, () => {
    const state = subscriber(t, server, ['all', 'a']);
    state.shown = new Set();
    state.client.on('notification', ({ notification }) => state.shown.add(notification.serial));
    // A user with this one rule, and an API that knows everything.
    state.client.on('subscribed', ({ list, isResumed }) => {
      if (isResumed) return;
      for (const { channel, serial } of publisher.published) if (list.includes(channel)) state.shown.add(serial);
    });
    return state;
  });
  await Promise.all(clients.map(({ answer }) => answer));
  let changes = 0;
  publisher.keepPublishing((serial) => {
    // Wherever this client is: online, away, or in the middle of a replay.
    if (serial % 5 < 2) {
      changes += 1;
      const { client } = clients[(changes * 7) % CHANGING_CLIENTS];
      client.subscribe(['all', topics[changes % topics.length]]);
    }
    return { channel: serial % 3 === 0 ? 'all' : topics[serial % topics.length], serial };
  });

  for (let round = 1; round <= DOUBLE_RESTARTS; round += 1) {
    await pause(STABLE_MS / SPEED);
    await restart(server, clients);
    // Half of them have been caught up, some may be at it.
    await until(() => clients.filter(({ onlineAt }) => onlineAt !== null).length >= CHANGING_CLIENTS / 2, 'half are back');
    await restart(server, clients);
    await allAreBack(server, clients);
  }
  await publishTheLast(publisher, clients);

  const inEachList = new Set(serialsOf(publisher.published.filter(({ channel }) => channel === 'all')));
  for (const { got, shown, gaps, errors, subscribed } of clients) {
    // What is in each list comes by itself, exactly once and in order, whatever else changes.
    assert.deepEqual(got.filter((serial) => inEachList.has(serial)), [...inEachList]);
    assert.equal(new Set(got).size, got.length, 'something came twice');
    const { list } = subscribed.at(-1);
    assert.deepEqual(publisher.published.filter(({ channel, serial }) => list.includes(channel) && !shown.has(serial)), []);
    assert.deepEqual([gaps, errors], [[], []]);
  }
  const returns = clients.flatMap(({ subscribed }) => subscribed.slice(1).filter(({ isFirst }) => isFirst));
  const resumed = returns.filter(({ isResumed }) => isResumed).length;
  assert.ok(resumed > 0 && resumed < returns.length, `${resumed} of ${returns.length} came back with the list that they had`);
  console.log(
    `web: ${CHANGING_CLIENTS} clients missed nothing over ${2 * DOUBLE_RESTARTS} kills and ${changes} changes of their lists; ` +
      `${resumed} of ${returns.length} times they came back with the same list`,
  );
});

/** Lets time run fast for the clients, until the end of the test. */
function hurry(t) {
  globalThis.setTimeout = (then, delay) => real.setTimeout(then, delay / SPEED);
  Date.now = () => began + (real.now() - began) * SPEED;
  t.after(() => {
    Object.assign(globalThis, { setTimeout: real.setTimeout, fetch: real.fetch });
    Date.now = real.now;
  });
}

/** A client, and all that it was told. */
function subscriber(t, server, list) {
  const client = new Crieur(server.url, { WebSocket });
  t.after(() => client.close());
  const state = { client, onlineAt: null, got: [], missed: 0, subscribed: [], gaps: [], errors: [] };
  client.on('status', ({ status }) => {
    if (status === 'online') state.onlineAt = Date.now();
  });
  client.on('error', (error) => state.errors.push(error));
  client.on('gap', ({ reason }) => state.gaps.push(reason));
  client.on('subscribed', (event) => state.subscribed.push(event));
  client.on('resumed', ({ missed }) => (state.missed += missed));
  client.on('notification', ({ id, notification }) => id !== undefined && state.got.push(notification.serial));
  state.answer = client.subscribe(list);
  return state;
}

/** A publisher that publishes each notification until it has an answer, with the same key. */
class KeyedPublisher {
  /** What was published or is about to be: what an API has in its database. */
  published = [];
  unanswered = 0;
  repeated = 0;
  /** Whether there is no answer yet to what was published last. */
  isWaiting = false;
  #server;
  #connection;
  #isStopping = false;
  #flow = Promise.resolve();

  constructor(server) {
    this.#server = server;
  }

  async publish(notification) {
    this.published.push(notification);
    for (;;) {
      this.isWaiting = true;
      const receipt = await this.#connection?.publish(notification, undefined, { key: String(notification.serial) });
      this.isWaiting = false;
      if (receipt) {
        assert.equal(receipt.type, 'published');
        if (receipt.repeated) this.repeated += 1;
        return;
      }
      if (this.#connection) this.unanswered += 1;
      this.#connection = await Publisher.connect(this.#server).catch(() => pause(5));
    }
  }

  keepPublishing(make) {
    const beganAt = real.now();
    this.#flow = (async () => {
      while (!this.#isStopping) {
        await this.publish(make(this.published.length));
        if (this.published.length > (real.now() - beganAt) / PUBLISH_MS) await pause(PUBLISH_MS);
      }
    })();
  }

  async stop() {
    this.#isStopping = true;
    await this.#flow;
  }
}

/** Kills the server, and starts it again. Gives the time of its death. */
async function restart(server, clients) {
  for (const client of clients) client.onlineAt = null;
  await server.kill();
  const killedAt = Date.now();
  await server.start();
  return killedAt;
}

/** Waits until each client is subscribed on the server as it runs now, once. */
async function allAreBack(server, clients) {
  await until(() => clients.every(({ onlineAt }) => onlineAt !== null), 'all are back', 60_000);
  const publisher = await Publisher.connect(server);
  const count = async () => (await publisher.publish({ channel: 'all' }, 'marker', { keep: false })).delivered;
  await until(async () => (await count()) === clients.length, 'all are subscribed');
  publisher.close();
}

/** Ends the flow. All see the same order: behind the last one, nothing comes any more. */
async function publishTheLast(publisher, clients) {
  await publisher.stop();
  const serial = publisher.published.length;
  await publisher.publish({ channel: 'all', serial });
  await until(() => clients.every(({ client, got }) => client.isSubscribed && got.at(-1) === serial), 'all got the last one');
}

const serialsOf = (notifications) => notifications.map(({ serial }) => serial);

function report(spreads) {
  const all = spreads.flat().sort((a, b) => a - b);
  const at = (share) => Math.round(all[Math.floor(share * (all.length - 1))]);
  console.log(
    `web: ${CLIENTS} clients were back after each of ${RESTARTS} kills; from the kill, in ms: ` +
      `first ${at(0)}, 10 % ${at(0.1)}, half ${at(0.5)}, 90 % ${at(0.9)}, last ${at(1)}`,
  );
}
