// The client against the real server: what it is told, and what it does when the server or the way
// to it is gone.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Link, Publisher, Server, clientToken, connect, next, nextStatus, secretFile } from './server.js';

const upgrade = async (url) => {
  const socket = new WebSocket(url);
  await once(socket, 'open');
  socket.close();
};

test('subscribes, gets what it subscribed to, changes its mind', async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server.url);
  let got = 0;
  client.on('notification', () => (got += 1));
  assert.deepEqual(await client.subscribe(['a']), { subscriptions: 1, heartbeat: 25 });
  const publisher = await Publisher.connect(server);
  const arrived = next(client, 'notification');
  const { id, ...receipt } = await publisher.publish({ channel: 'a', price: 1 }, 'chat');
  assert.deepEqual(receipt, { type: 'published', delivered: 1 });
  assert.match(id, /^[0-9a-f]{16}-[1-9][0-9]*$/);
  assert.equal((await arrived).type, 'chat');
  await client.subscribe([{ package: 'p', page: 'q', filters: { values: { n: [1] } } }]);
  assert.equal((await publisher.publish({ channel: 'a' })).delivered, 0);
  assert.equal((await publisher.publish({ package: 'p', page: 'q', filters: { values: { n: 1 } } })).delivered, 1);
  await assert.rejects(client.subscribe([{ package: 'p' }]), { code: 'invalid-subscription' });
  assert.equal((await publisher.publish({ package: 'p', page: 'q', filters: { values: { n: 1 } } })).delivered, 1);
  client.wake();
  await assert.doesNotReject(client.subscribe(['b']));
  assert.ok(client.roundTrip >= 0 && client.roundTrip < 1_000);
  assert.equal(got, 3);
  publisher.close();
});

for (const resume of [true, false]) {
  const name = resume ? '' : ', without resuming too';
  test(`an app that asks the API when it is told to misses nothing, however long the list is on its way${name}`, async (t) => {
    const server = await Server.start(t);
    const link = await Link.to(t, server);
    const publisher = await Publisher.connect(server);
    const database = [];
    const say = async (id) => {
      database.push(id);
      return (await publisher.publish({ channel: 'a', id })).delivered;
    };
    const client = connect(t, link.url, { resume });
    const shown = new Set();
    client.on('notification', ({ notification }) => shown.add(notification.id));
    // In this event the list is sent, and the link has not seen it yet.
    client.on('status', ({ status }) => status === 'online' && link.hold());
    client.subscribe(['a']);
    for (let round = 0; round < 2; round += 1) {
      const online = nextStatus(client, 'online');
      link.cut();
      await say(`${round}: before`);
      await online;
      assert.equal(await say(`${round}: online`), 0, 'the list is still on its way');
      assert.equal(client.isSubscribed, false);
      const subscribed = next(client, 'subscribed');
      link.release();
      const { isResumed, ...others } = await subscribed;
      assert.deepEqual(others, { list: ['a'], isFirst: true });
      // The first time it has nothing that could go on.
      assert.equal(isResumed, resume && round > 0);
      const read = isResumed ? [] : [...database];
      const last = `${round}: while the API answers`;
      const arrived = next(client, 'notification', ({ notification }) => notification.id === last);
      await say(last);
      await arrived;
      for (const id of read) shown.add(id);
      assert.deepEqual([...shown].sort(), [...database].sort());
    }
    publisher.close();
  });
}

test('a server that stops says when to come back, and is believed', async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server.url);
  await client.subscribe(['a']);
  const waiting = nextStatus(client, 'waiting');
  await server.terminate();
  const { code, reason, retryAt } = await waiting;
  assert.deepEqual([code, reason], [1001, 'shutdown']);
  await server.start();
  await nextStatus(client, 'online');
  assert.ok(Date.now() >= retryAt - 5);
  await client.subscribe(['a']);
  const publisher = await Publisher.connect(server);
  assert.equal((await publisher.publish({ channel: 'a' })).delivered, 1);
  publisher.close();
});

test('a link that goes silent is noticed within the heartbeat and 10 s', async (t) => {
  const heartbeat = 1;
  const server = await Server.start(t, '--ping-interval', String(heartbeat), '--pong-timeout', '60');
  const link = await Link.to(t, server);
  const client = connect(t, link.url);
  await client.subscribe(['a']);
  link.silence();
  const began = performance.now();
  await nextStatus(client, 'connecting');
  const seconds = (performance.now() - began) / 1000;
  console.log(`web: a silent link was noticed after ${seconds.toFixed(1)} s, with a heartbeat of ${heartbeat} s`);
  assert.ok(seconds < heartbeat + 10 + 1, `${seconds} s`);
  await nextStatus(client, 'online');
  await client.subscribe(['a', 'b']);
});

test('a token that expired, or that is too narrow, is followed by a fresh one', async (t) => {
  const key = '0123456789abcdef0123456789abcdef';
  const server = await Server.start(t, '--client-key-file', secretFile(t, key));
  // The first is beyond the leeway of the server's clock.
  const tokens = [clientToken(key, ['a'], -60), clientToken(key, ['a'], 60), clientToken(key, ['a', 'b'], 60)];
  let asked = 0;
  const client = connect(t, server.url, { token: async () => tokens[Math.min(asked++, 2)] });
  const errors = [];
  client.on('error', ({ code }) => errors.push(code));
  await client.subscribe(['a']);
  assert.equal(asked, 2);
  assert.deepEqual(await client.subscribe(['a', 'b']), { subscriptions: 2, heartbeat: 25 });
  assert.equal(asked, 3);
  await assert.rejects(client.subscribe(['c']), { code: 'forbidden' });
  await client.subscribe(['a', 'b']);
  assert.deepEqual(errors, ['forbidden']);

  const refused = connect(t, server.url, { token: () => 'nonsense' });
  const { code } = await next(refused, 'error');
  assert.equal(code, 'unauthorized');
  assert.equal(refused.status, 'closed');
});

test('a socket that is left while it connects is no exception', async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server.url);
  await nextStatus(client, 'connecting');
  // The socket is made behind the event.
  await Promise.resolve();
  client.close();
  await assert.rejects(client.subscribe(['a']), { code: 'closed' });
  const second = connect(t, server.url);
  await second.subscribe(['a']);
});

test('nothing keeps the process alive behind close()', async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server.url);
  await client.subscribe(['a']);
  client.close();
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  // ws waits for the server's Close with a timer of its own, until that has come.
  while (timers() > 0) await new Promise((resolve) => setImmediate(resolve));
});

test('the files are where they should be, and say what they are', async (t) => {
  const server = await Server.start(t);
  const page = await fetch(server.page);
  assert.equal(page.status, 200);
  assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
  assert.match(page.headers.get('content-security-policy'), /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/);
  assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
  const scripts = ['crieur', 'console', 'console-page', 'console-list', 'console-figures', 'console-server'];
  for (const [name, type] of [...scripts.map((name) => [`${name}.js`, 'text/javascript']), ['console.css', 'text/css']]) {
    const file = await fetch(`${server.page}${name}`);
    assert.equal(file.status, 200, name);
    assert.equal(file.headers.get('content-type'), `${type}; charset=utf-8`);
    const text = await file.text();
    assert.ok(text.length > 1_000);
    assert.doesNotMatch(text, /^( |\/\/|\/\*)/m, 'nothing for people only');
    // An upgrade on the same path is none of the files' business.
    await upgrade(`${server.url}${name}`);
  }
  await upgrade(server.url);
  const head = await fetch(server.page, { method: 'HEAD' });
  assert.equal(head.headers.get('content-length'), String(Buffer.byteLength(await page.text())));
  assert.equal(await head.text(), '');
  assert.equal((await fetch(server.page, { method: 'POST' })).status, 405);
  assert.equal((await fetch(`${server.page}nothing`)).status, 404);
});

test('the console is shown as the flag says', async (t) => {
  const through = { headers: { 'X-Forwarded-For': '192.0.2.1' } };
  for (const [who, local, proxied] of [['local', 200, 426], ['public', 200, 200], ['off', 426, 426]]) {
    const server = await Server.start(t, '--console', who);
    assert.equal((await fetch(server.page)).status, local, who);
    assert.equal((await fetch(server.page, through)).status, proxied, who);
    assert.equal((await fetch(`${server.page}crieur.js`, through)).status, 200, who);
  }
});
