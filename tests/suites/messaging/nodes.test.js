// The application with two nodes behind nginx, which share a Redis: it goes on without one of them, and nobody notices.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Application, Client, PRODUCTION, reader, sources, until } from './application.js';
import { chat, chatIn, comesBack, count, enter, launch, says, shows, texts } from './pages.js';

const NODES = ['crieur', 'crieur-2'];
const RESTART_SECONDS = 0.3;

let application;
let browser;

before(async () => {
  application = await Application.start(['--nodes', NODES.length, '--restart-seconds', RESTART_SECONDS]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await application?.stop();
});

/** How often a node has taken the list of a page, or of one of the clients here. */
const lists = (where, node) => where.log(node).match(/ has [13] subscriptions?\b/g)?.length ?? 0;

/** Brings in Alice and Bob, one after the other, at different nodes; `leave` takes one away. */
async function enterApart(where, come, leave) {
  for (;;) {
    const before = NODES.map((node) => lists(where, node));
    const both = [await come('alice'), await come('bob')];
    const taken = () => NODES.map((node, index) => lists(where, node) - before[index]);
    // The log is written a moment later.
    await until(() => taken().reduce((sum, each) => sum + each) >= 2, 'both are in the log');
    if (taken().every((each) => each === 1)) return both;
    // nginx goes by who was there a moment ago, and passes over a node for a second that was away.
    await Promise.all(both.map(leave));
  }
}
const enterPagesApart = (t) =>
  enterApart(application, (login) => enter(application, t, login, PRODUCTION), (page) => page.context().close());

test('A and B are at different nodes, and that is all the same', async (t) => {
  const [a, b] = await enterPagesApart(t);
  await chat(a, ['from A']);
  await shows(b, 'from A');
  await chat(b, ['from B']);
  await shows(a, 'from B');
  const kept = (page) => page.frames.flatMap(({ received }) => (received?.notification && received.type !== 'typing' ? [received] : []));
  await until(() => [a, b].every((page) => kept(page).length === 4), 'both have all');
  assert.deepEqual(kept(a), kept(b), 'in the same order, with the same ids');
  assert.ok(kept(a).every(({ id }) => id));
  await a.locator('[name=details]').pressSequentially('Well');
  await says(b, '#typing', 'Alice is typing…');
  assert.deepEqual([a, b].map((page) => count(page, 'message/list')), [0, 0]);
  assert.deepEqual([...a.complaints, ...b.complaints], []);
});

test('a node is killed, and another, while A and B talk: each message comes, once, and the API is not asked', async (t) => {
  const [a, b] = await enterPagesApart(t);
  const faults = () => (existsSync(path.join(application.data, 'logs/api.log')) ? application.log('api') : '');
  const before = faults();
  const shown = (await texts(a)).length;
  const said = [];
  for (const [kill, node] of [...NODES, NODES[0]].entries()) {
    const lines = (who) => Array.from({ length: 5 }, (_, number) => `${who} ${kill}.${number}.`);
    said.push(...lines('A'), ...lines('B'));
    const from = [a, b].map((page) => page.frames.length);
    const talk = Promise.all([chat(a, lines('A')), chat(b, lines('B'))]);
    await shows(a, `A ${kill}.1.`);
    await application.kill(node, async () => {
      await talk;
      // All of it without that node: whoever was there comes back to the other.
      await until(async () => {
        await Promise.all([comesBack(a), comesBack(b)]);
        return (await texts(a)).length === shown + said.length && (await texts(b)).length === shown + said.length;
      }, 'both have all');
      const lost = [a, b].filter((page, index) => page.frames.slice(from[index]).some(({ closed }) => closed));
      assert.equal(lost.length, kill === 0 ? 1 : 2, 'the first kill is of one of them; from there both are at the same node');
    });
  }
  const bob = await application.user('bob');
  const { messages } = await bob.call('message', 'list', { channelid: bob.channels[PRODUCTION] });
  const kept = messages.map(({ text }) => text);
  assert.deepEqual(kept.slice(shown).toSorted(), said.toSorted());
  for (const page of [a, b]) {
    assert.deepEqual(await texts(page), kept, 'each once, in order');
    await until(() => chatIn(page, 0).length >= said.length, 'each was notified');
    assert.deepEqual(chatIn(page, 0).toSorted(), said.toSorted(), 'and once');
    const answers = page.frames.flatMap(({ received }) => (received?.type === 'subscribed' ? [received.resumed] : []));
    assert.ok(answers.length > NODES.length && answers.every((isResumed) => isResumed), `resumed: ${answers}`);
    assert.deepEqual([count(page, 'page/load'), count(page, 'message/list')], [1, 0]);
    assert.equal(await page.$('.waiting'), null);
  }
  assert.equal(faults(), before, 'the API has found a node for each');
});

test('a node that is silent: the API publishes at the other, and each client gets it once', async (t) => {
  // Over HTTP the silent one is sent all of it, and does it when it goes on.
  const own = await Application.start(['--nodes', NODES.length, '--publish-over', 'http']);
  t.after(() => own.stop());
  const users = {};
  const clients = await enterApart(own, async (login) => {
    const user = (users[login] = await own.user(login));
    const client = await Client.connect(t, own.addresses.clients);
    await client.subscribe([reader(user.channels[PRODUCTION])], user.token);
    return client;
  }, ({ socket }) => socket.terminate());
  const silent = own.pid(NODES[0]);
  process.kill(silent, 'SIGSTOP');
  try {
    const { notified } = await users.alice.say(PRODUCTION, 'past a silent node');
    assert.equal(notified, true);
    await until(() => clients.some(({ notifications }) => notifications.length > 0), 'the other node brings it at once');
  } finally {
    process.kill(silent, 'SIGCONT');
  }
  await until(() => own.log(NODES[0]).includes('was to be published again, by its key'), 'what it was sent is done, too');
  await users.alice.say(PRODUCTION, 'afterwards');
  const heard = ({ notifications }) => notifications.map(({ notification }) => notification.message.text);
  await until(() => clients.every((client) => heard(client).includes('afterwards')), 'both have all');
  for (const client of clients) assert.deepEqual(heard(client), ['past a silent node', 'afterwards']);
});

test('both nodes are killed: what is said is saved, and comes when they are back, with what they had', async (t) => {
  const [a, b] = await enterPagesApart(t);
  await chat(a, ['with both']);
  await shows(b, 'with both');
  await application.kill(NODES[0], async () => {
    process.kill(application.pid(NODES[1]), 'SIGKILL');
    await Promise.all([a, b].map((page) => says(page, '#status', 'Reconnecting')));
    await chat(a, ['without a node']);
    await says(a, '#messages .waiting', 'Saved');
  });
  await Promise.all([comesBack(a), comesBack(b)]);
  await shows(b, 'without a node');
  await a.waitForFunction(() => !document.querySelector('.waiting'));
  for (const page of [a, b]) {
    assert.deepEqual((await texts(page)).slice(-2), ['with both', 'without a node']);
    assert.equal(count(page, 'message/list'), 0, 'the Redis has their history');
  }
});

test('the Redis is killed: what is said is saved, and comes when it is back', async (t) => {
  const [a, b] = await enterPagesApart(t);
  await application.kill('redis', async () => {
    await chat(a, ['without a Redis']);
    await says(a, '#messages .waiting', 'Saved');
    assert.deepEqual(await Promise.all([a, b].map((page) => page.textContent('#status'))), ['Live', 'Live']);
    assert.ok(!(await texts(b)).includes('without a Redis'));
  });
  await shows(b, 'without a Redis');
  await a.waitForFunction(() => !document.querySelector('.waiting'));
  await chat(a, ['with it again']);
  await shows(b, 'with it again');
  const from = (all) => all.slice(all.indexOf('without a Redis'));
  for (const page of [a, b]) {
    await says(page, '#status', 'Live');
    assert.deepEqual(from(await texts(page)), ['without a Redis', 'with it again']);
    assert.equal(count(page, 'message/list'), 1, 'a restart may have lost something: the API is asked, once');
  }
});

test('without a redis-server it says what to install, and does nothing else', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'crieur-messaging-'));
  try {
    const python = execFileSync('sh', ['-c', 'command -v python3'], { encoding: 'utf8' }).trim();
    const data = path.join(folder, 'data');
    const { status, stdout, stderr } = spawnSync(python, [path.join(sources, 'start'), '--nodes', '2', '--data', data], {
      env: { PATH: folder }, encoding: 'utf8',
    });
    assert.deepEqual([status, stdout, stderr], [1, '', 'redis-server is missing: apt-get install redis-server\n']);
    assert.ok(!existsSync(data));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
