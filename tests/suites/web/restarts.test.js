// 200 clients, and a server that is killed 20 times under them while notifications flow. The
// clients' clock runs fast, so that what takes minutes takes seconds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Crieur } from 'crieur';
import { Publisher, Server, until } from './server.js';

const CLIENTS = 200;
const RESTARTS = 20;
const SPEED = 4;
/** What a connection has to live before it counts, with something to spare. */
const STABLE_MS = 5_500;

const real = { setTimeout: globalThis.setTimeout, now: Date.now };
const began = real.now();
const pause = (ms) => new Promise((resolve) => real.setTimeout(resolve, ms));

test(`${CLIENTS} clients survive ${RESTARTS} restarts`, async (t) => {
  const server = await Server.start(t);
  globalThis.setTimeout = (then, delay) => real.setTimeout(then, delay / SPEED);
  Date.now = () => began + (real.now() - began) * SPEED;
  t.after(() => {
    Object.assign(globalThis, { setTimeout: real.setTimeout });
    Date.now = real.now;
  });

  const clients = Array.from({ length: CLIENTS }, (_, number) => subscriber(t, server, number));
  await Promise.all(clients.map(({ answer }) => answer));

  const spreads = [];
  for (let round = 1; round <= RESTARTS; round += 1) {
    const publisher = await Publisher.connect(server);
    const flow = keepPublishing(publisher, round);
    await pause(STABLE_MS / SPEED);
    for (const client of clients) client.onlineAt = null;
    await server.kill();
    const killedAt = Date.now();
    await flow;
    await server.start();
    await until(() => clients.every(({ onlineAt }) => onlineAt !== null), 'all are back', 60_000);
    const marker = await Publisher.connect(server);
    // Renewed, and none of them twice: this many have subscribed on the new server.
    await until(async () => (await marker.publish({ channel: 'all', round })).delivered === CLIENTS, 'all are subscribed');
    marker.close();
    await until(() => clients.every(({ rounds }) => rounds.has(round)), 'all got the notification');
    spreads.push(clients.map(({ onlineAt }) => onlineAt - killedAt).sort((a, b) => a - b));
  }
  for (const { isInOrder, errors } of clients) {
    assert.ok(isInOrder, 'a notification came twice or out of order');
    assert.deepEqual(errors, []);
  }
  report(spreads);
});

function subscriber(t, server, number) {
  const client = new Crieur(server.url, { WebSocket });
  t.after(() => client.close());
  const state = { onlineAt: null, rounds: new Set(), last: 0, isInOrder: true, errors: [] };
  client.on('status', ({ status }) => {
    if (status === 'online') state.onlineAt = Date.now();
  });
  client.on('error', (error) => state.errors.push(error));
  client.on('notification', ({ notification }) => {
    if (notification.channel === 'all') state.rounds.add(notification.round);
    else {
      state.isInOrder &&= notification.serial > state.last;
      state.last = notification.serial;
    }
  });
  state.answer = client.subscribe(['all', { package: 'p', page: 'q', filters: { values: { half: [number % 2] } } }]);
  return state;
}

/** Publishes until the server is gone. */
async function keepPublishing(publisher, round) {
  for (let serial = round * 1_000_000; ; serial += 1) {
    const half = serial % 2;
    const answer = await publisher.publish({ package: 'p', page: 'q', filters: { values: { half } }, serial });
    if (answer === null) return;
    assert.equal(answer.delivered, CLIENTS / 2);
    await pause(2);
  }
}

function report(spreads) {
  const all = spreads.flat().sort((a, b) => a - b);
  const at = (share) => Math.round(all[Math.floor(share * (all.length - 1))]);
  console.log(
    `web: ${CLIENTS} clients were back after each of ${RESTARTS} kills; from the kill, in ms: ` +
      `first ${at(0)}, 10 % ${at(0.1)}, half ${at(0.5)}, 90 % ${at(0.9)}, last ${at(1)}`,
  );
}
