// The API: what it takes, what it refuses, and what it keeps.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { renameSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Application, Client, PACKAGE, PRODUCTION, reader, until } from './application.js';

let application;
before(async () => {
  application = await Application.start(['--restart-seconds', '0.2']);
});
after(() => application?.stop());

const command = (object, action, values) => ({ cmd: [{ amaiia_msg_srv: { [object]: { [action]: values } } }] });

test('a message is saved, listed, and counted as unread by the others', async () => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  const { message } = await alice.say(PRODUCTION, '  <b>Été</b> \u{1F527}\n"quoted" ', 'Title');
  assert.equal(message.text, '<b>Été</b> \u{1F527}\n"quoted"');
  assert.equal(typeof message.id, 'string');
  const list = await bob.call('message', 'list', { channelid: bob.channels[PRODUCTION] });
  assert.deepEqual(list, { messages: [message], more: false });
  const unread = async (user) => (await user.call('channel', 'list')).channels.find(({ name }) => name === PRODUCTION).unread;
  assert.deepEqual([await unread(alice), await unread(bob)], [0, 1]);
  await bob.call('channel', 'read', { channelid: bob.channels[PRODUCTION], messageid: message.id });
  assert.equal(await unread(bob), 0);
});

test('a list changes: those who look at it are told', async (t) => {
  const bob = await application.user('bob');
  const client = await Client.connect(t, application.addresses.clients);
  const filters = { values: { channel: [bob.channels.General] } };
  await client.subscribe([{ package: PACKAGE, page: 'channel_list', filters }], bob.token);
  await (await application.user('chloe')).say('General', 'Bonjour');
  await until(() => client.notifications.length > 0, 'refreshcontent');
  const [{ type, notification }] = client.notifications;
  assert.equal(type, 'refreshcontent');
  assert.equal(notification.message, undefined, 'what is said is for those who read the channel');
});

test('messages are listed in pages, behind one that is known', async () => {
  const chloe = await application.user('chloe');
  const channelid = chloe.channels.Maintenance;
  const ids = [];
  for (let number = 0; number < 105; number += 1) ids.push((await chloe.say('Maintenance', `${number}`)).message.id);
  const listed = async (after) => {
    const { messages, more } = await chloe.call('message', 'list', { channelid, after });
    return [messages.map(({ id }) => id), more];
  };
  assert.deepEqual(await listed(undefined), [ids.slice(5), true], 'the newest');
  assert.deepEqual(await listed(0), [ids.slice(0, 100), true], 'from the beginning');
  assert.deepEqual(await listed(ids[99]), [ids.slice(100), false]);
});

test('several commands are answered in order; the first that fails ends them', async () => {
  const alice = await application.user('alice');
  const { status, answer } = await application.post({
    cmd: [
      { amaiia_msg_srv: { channel: { list: {} } } },
      { amaiia_msg_srv: { message: { add: {} } } },
      { amaiia_msg_srv: { channel: { list: {} } } },
    ],
  }, { Authorization: `Bearer ${alice.session}` });
  assert.equal(status, 422);
  assert.equal(answer.cmd.length, 1);
  assert.equal(answer.cmd[0].amaiia_msg_srv.channel.list.channels.length, 3);
});

test('errors are JSON with the right status', async () => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  const known = { Authorization: `Bearer ${alice.session}` };
  const channelid = Number(alice.channels[PRODUCTION]);
  const add = (values) => command('message', 'add', { channelid, title: '', details: 'x', sentby: 'alice', ...values });
  const cases = [
    ['no JSON', '{', known, 400, 'invalid-json'],
    ['a text', '"cmd"', known, 400, 'invalid-json'],
    ['too deep', '['.repeat(50_000), known, 400, 'invalid-json'],
    ['no commands', { cmd: [] }, known, 400, 'invalid-json'],
    ['too many commands', { cmd: Array(21).fill(command('channel', 'list', {}).cmd[0]) }, known, 400, 'invalid-json'],
    ['another service', { cmd: [{ other: { message: { add: {} } } }] }, known, 400, 'unknown-command'],
    ['two actions', { cmd: [{ amaiia_msg_srv: { message: { add: {}, list: {} } } }] }, known, 400, 'unknown-command'],
    ['another command', command('message', 'remove', {}), known, 400, 'unknown-command'],
    ['not JSON by its type', add(), { ...known, 'Content-Type': 'text/plain' }, 415, 'content-type'],
    ['no session', add(), {}, 401, 'session'],
    ['a session that is none', add(), { Authorization: 'Bearer 0' }, 401, 'session'],
    ['a wrong password', command('user', 'login', { login: 'alice', password: 'x' }), {}, 401, 'login'],
    ['nobody', command('user', 'login', { login: 'nobody', password: 'demo' }), {}, 401, 'login'],
    ['SQL', command('user', 'login', { login: "alice' --", password: 'demo' }), {}, 401, 'login'],
    ['somebody else', add({ sentby: 'bob' }), known, 403, 'forbidden'],
    ['a channel of others', add({ channelid: alice.channels.Maintenance, sentby: 'bob' }), { Authorization: `Bearer ${bob.session}` }, 403, 'forbidden'],
    ['no such channel', add({ channelid: 99 }), known, 403, 'forbidden'],
    ['no channel', add({ channelid: null }), known, 422, 'invalid'],
    ['a channel below 0', add({ channelid: -1 }), known, 422, 'invalid'],
    ['a number beyond all', add({ channelid: '9'.repeat(19) }), known, 422, 'invalid'],
    ['blank', add({ details: ' \n' }), known, 422, 'invalid'],
    ['a list as a text', add({ details: ['x'] }), known, 422, 'invalid'],
    ['NUL', add({ details: 'a\0b' }), known, 422, 'invalid'],
    ['too long', add({ details: 'é'.repeat(4001) }), known, 422, 'invalid'],
    ['a long title', add({ title: 'é'.repeat(121) }), known, 422, 'invalid'],
  ];
  for (const [name, body, headers, status, code] of cases) {
    const result = await application.post(body, headers);
    assert.deepEqual([name, result.status, result.answer?.error?.code], [name, status, code]);
  }
  const { status } = await application.post(add({ details: 'é'.repeat(4000), title: 'é'.repeat(120) }), known);
  assert.equal(status, 200, 'as long as it may be');
  const got = await fetch(new URL('ic.php', application.url));
  assert.deepEqual([got.status, got.headers.get('allow'), (await got.json()).error.code], [405, 'POST', 'method']);
});

test('a user who has logged out is a stranger', async () => {
  const bob = await application.user('bob');
  await bob.call('user', 'logout');
  assert.equal((await bob.send('channel', 'list')).status, 401);
  assert.ok(!application.read('messages.sqlite').includes(bob.session), 'not kept as it is');
});

test('all that the page shows first comes with the position behind which it goes on', async () => {
  const alice = await application.user('alice');
  const { message } = await alice.say(PRODUCTION, 'the newest');
  const bob = await application.user('bob');
  const page = await bob.call('page', 'load', { channel: PRODUCTION });
  assert.deepEqual(Object.keys(page), ['position', 'channels', 'open']);
  assert.deepEqual(page.channels, (await bob.call('channel', 'list')).channels);
  assert.deepEqual([page.open.id, page.open.messages.at(-1), page.open.more], [bob.channels[PRODUCTION], message, false]);
  const next = await application.publish({ channel: 'x' }, { keep: false });
  assert.deepEqual([next.error, next.id], [null, null]);
  assert.equal((await bob.call('page', 'load', {})).position, page.position, 'nothing was published since');
  assert.notEqual((await application.publish({ channel: 'x' })).id, page.position);
  const opened = async (channel) => (await bob.call('page', 'load', { channel })).open.id;
  assert.equal(await opened('Maintenance'), page.channels[0].id, 'not of his: the first of his');
  assert.equal(await opened(['x']), page.channels[0].id);
  assert.equal((await application.post(command('page', 'load', {}))).status, 401);
});

/**
 * Between the API and the publishers' lane: `before` is called with the first line of a request before that goes on. Where
 * it gives `false`, the answer gets lost.
 */
async function listenIn(t, before) {
  const socket = path.join(application.data, 'publish.sock');
  renameSync(socket, `${socket}.behind`);
  const listener = net.createServer((api) => {
    const lane = net.connect(`${socket}.behind`);
    for (const each of [api, lane]) each.on('error', () => each.destroy());
    api.once('data', async (bytes) => {
      const isPassed = await before(bytes.toString().split('\r\n')[0]);
      lane.on('data', (answer) => {
        if (isPassed !== false || answer.toString('latin1').startsWith('HTTP/1.1 101')) api.write(answer);
        else api.destroy();
      });
      lane.on('end', () => api.end());
      lane.write(bytes);
      api.pipe(lane);
    });
  });
  listener.listen(socket);
  await once(listener, 'listening');
  t.after(() => {
    // A listener takes its path along.
    listener.close();
    renameSync(`${socket}.behind`, socket);
  });
}

test('the rows are read behind the position: what is published up to it is in them', async (t) => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  let said = null;
  await listenIn(t, async (request) => {
    if (request.startsWith('GET /position') && said === null) {
      said = alice.say(PRODUCTION, 'while the position is asked for');
      assert.equal((await said).notified, true);
    }
  });
  const { open } = await bob.call('page', 'load', { channel: PRODUCTION });
  assert.deepEqual(open.messages.at(-1), (await said).message);
});

test('somebody who is typing: those who are there are told, and nobody later', async (t) => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  const channel = bob.channels[PRODUCTION];
  const typing = { ...reader(channel), page: 'message_typing' };
  const client = await Client.connect(t, application.addresses.clients);
  const { id } = await client.subscribe([typing, reader(channel)], bob.token, '');
  const app = await Client.connect(t, application.addresses.apps);
  await app.subscribe([typing, reader(channel)]);
  await alice.call('channel', 'typing', { channelid: channel });
  await alice.say(PRODUCTION, 'typed');
  await until(() => client.notifications.length === 2 && app.notifications.length === 1, 'all has come');
  const [told] = client.notifications;
  assert.deepEqual(told, { type: 'typing', notification: { page: 'message_typing', package: PACKAGE, filters: { values: { channel } }, login: 'alice', name: 'Alice' } });
  assert.equal(app.notifications[0].notification.type, 'chat', 'an existing app is not bothered');
  const later = await Client.connect(t, application.addresses.clients);
  await later.subscribe([typing, reader(channel)], bob.token, id);
  await until(() => later.messages.some(({ type }) => type === 'caught-up'), 'it is caught up');
  assert.deepEqual(later.notifications.map(({ notification }) => notification.type), ['chat']);
  assert.equal((await bob.send('channel', 'typing', { channelid: alice.channels.Maintenance })).status, 403);
});

test('what is published again because no answer came is delivered once', async (t) => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  const channel = reader(bob.channels[PRODUCTION]);
  const client = await Client.connect(t, application.addresses.clients);
  await client.subscribe([channel], bob.token);
  let lost = 0;
  let isBroken = true;
  await listenIn(t, async (request) => {
    if (!isBroken || request.startsWith('GET /position')) return true;
    lost += 1;
    return false;
  });
  const first = await alice.say(PRODUCTION, 'delivered, but who knows');
  assert.equal(first.notified, false);
  // Those of the request itself, and at least one of the outbox.
  await until(() => lost > 2, 'it is published again');
  isBroken = false;
  const second = await alice.say(PRODUCTION, 'behind it');
  assert.equal(second.notified, true);
  await until(() => client.notifications.some(({ notification }) => notification.message.id === second.message.id), 'the next has come');
  assert.deepEqual(client.notifications.map(({ notification }) => notification.message), [first.message, second.message]);
});

test('what no server takes is in nobody\'s way', async () => {
  const dsn = `sqlite:${path.join(application.data, 'messages.sqlite')}`;
  const sql = `INSERT INTO outbox (server, due, message) VALUES (0, 0, '{"notification":{"page":"without a package"}}')`;
  execFileSync('php', ['-r', '(new PDO($argv[1]))->exec($argv[2]);', dsn, sql]);
  assert.equal((await (await application.user('alice')).say(PRODUCTION, 'behind it')).notified, true);
  assert.match(application.log('api') + application.log('outbox'), /not notified: invalid/);
});

test('what cannot be published is published later: once, in order, where it is missing', async (t) => {
  const alice = await application.user('alice');
  const bob = await application.user('bob');
  const channel = reader(bob.channels[PRODUCTION]);
  const lists = { ...channel, page: 'channel_list' };
  const { addresses } = application;
  for (const [name, url, token] of [['crieur', addresses.clients, bob.token], ['apps-crieur', addresses.apps, undefined]]) {
    const client = await Client.connect(t, url);
    const { id } = await client.subscribe([channel, lists], token, '');
    const [others, tokenOfOthers] = name === 'crieur' ? [addresses.apps, undefined] : [addresses.clients, bob.token];
    const other = await Client.connect(t, others);
    await other.subscribe([channel, lists], tokenOfOthers);
    const said = [];
    await application.kill(name, async () => {
      for (const text of ['one', 'two', 'three']) said.push(await alice.say(PRODUCTION, text));
      assert.deepEqual(said.map(({ notified }) => notified), [false, false, false]);
      const { position, open } = await bob.call('page', 'load', { channel: PRODUCTION });
      assert.deepEqual([position === null, open.messages.at(-1)], [name === 'crieur', said[2].message]);
    });
    const back = await Client.connect(t, url);
    assert.equal((await back.subscribe([channel, lists], token, id)).resumed, true);
    await until(() => back.notifications.length === 6, 'all has come');
    said.push(await alice.say(PRODUCTION, 'four'));
    assert.equal(said[3].notified, true);
    for (const each of [back, other]) {
      await until(() => each.notifications.length >= 8, 'the next has come');
      const got = each.notifications.map(({ type, notification }) => notification.message ?? type);
      assert.deepEqual(got, said.flatMap(({ message }) => [message, 'refreshcontent']));
    }
  }
});
