// What nginx lets through from outside, and what not; and the apps that know no tokens.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { Application, Client, PRODUCTION, reader, until } from './application.js';

let application;
before(async () => {
  application = await Application.start();
});
after(() => application?.stop());

test('the page and its scripts are served, the sources are not', async () => {
  const status = async (path) => (await fetch(new URL(path, application.url))).status;
  for (const path of ['', 'app.js', 'style.css', 'crieur.js']) assert.equal(await status(path), 200, path);
  for (const path of ['api/autoload.php', 'autoload.php', 'schema.sql', 'ic.php/x', 'setup.php', '../api/ic.php', '.htaccess']) {
    assert.equal(await status(path), 404, path);
  }
  const page = await fetch(application.url);
  assert.match(page.headers.get('content-security-policy'), /default-src 'self'/);
});

test("the publishers' lane cannot be reached from outside", async (t) => {
  const token = application.read('publish.token').trim();
  const upgrade = async (url, options) => {
    const socket = new WebSocket(url, options);
    t.after(() => socket.terminate());
    return Promise.race([
      once(socket, 'open').then(() => 101),
      new Promise((resolve) => socket.on('unexpected-response', (_, response) => resolve(response.statusCode))),
    ]);
  };
  const { clients, apps } = application.addresses;
  for (const path of ['/publish', '/position', '/ws/publish', '/ws/position', '/publish.sock']) {
    for (const base of [clients, apps]) assert.equal(await upgrade(new URL(path, base)), 404, `${base} ${path}`);
  }
  // Even with the API's secret: the clients' lane is not the publishers'.
  for (const url of [clients, apps]) {
    const client = await Client.connect(t, url, { headers: { Authorization: `Bearer ${token}` } }).catch(() => null);
    client?.send({ sender: 'server', token, notification: { channel: PRODUCTION } });
    if (client !== null) assert.notEqual((await client.closed).code, 1000);
  }
  assert.doesNotMatch(application.log() + application.log('apps-crieur'), / published to /);
});

test('an existing app, without a token and with the Origin of the server, works as ever', async (t) => {
  const { apps } = application.addresses;
  const { host } = new URL(apps);
  // As React Native connects, and as its first message is.
  const app = await Client.connect(t, apps, { headers: { Origin: `http://${host}` } });
  const alice = await application.user('alice');
  const channel = alice.channels[PRODUCTION];
  const answer = await app.subscribe([reader(channel)]);
  assert.deepEqual([answer.type, answer.subscriptions], ['subscribed', 1]);
  const { message } = await alice.say(PRODUCTION, 'for everybody');
  await until(() => app.notifications.length > 0, 'the notification has come');
  const [{ notification }] = app.notifications;
  assert.deepEqual([notification.type, notification.filters.values.channel, notification.message], ['chat', channel, message]);
  // It goes on pinging and talking as it does, and stays.
  app.send({ type: 'ping' });
  app.send({ sender: 'client', cmd: [{ amaiia_msg_srv: {} }] });
  await until(() => app.messages.some(({ type }) => type === 'pong') && app.messages.some(({ type }) => type === 'error'), 'both are answered');
  await alice.say(PRODUCTION, 'and again');
  await until(() => app.notifications.length === 2, 'the second has come');
});

test("the existing apps' address is not for the pages of others", async () => {
  const { apps } = application.addresses;
  const socket = new WebSocket(apps, { headers: { Origin: 'https://elsewhere.example' } });
  socket.on('error', () => {});
  const [, response] = await once(socket, 'unexpected-response');
  assert.equal(response.statusCode, 403);
  socket.terminate();
});

test('without a token nobody subscribes at the address of the clients', async (t) => {
  const client = await Client.connect(t, application.addresses.clients);
  client.send({ sender: 'client', subscriptions: [PRODUCTION] });
  const { code, reason } = await client.closed;
  assert.deepEqual([code, JSON.parse(reason).reason], [3000, 'token-missing']);
});
