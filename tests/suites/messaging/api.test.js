// The API: what it takes, what it refuses, and what it keeps.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Application, Client, PACKAGE, PRODUCTION, until } from './application.js';

let application;
before(async () => {
  application = await Application.start();
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
