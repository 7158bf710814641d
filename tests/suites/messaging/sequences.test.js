// The six sequences of the application, from a click to the other's screen, in Chromium and over real sockets; and what
// becomes of messages when crieur, its history, the API or the page's connection is gone for a while.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Application, Client, PACKAGE, PRODUCTION, reader, until } from './application.js';
import {
  chat, chatIn, comesBack, commandIn, count, cut, enter as enterAt, launch, say, says, shot, shows, texts,
} from './pages.js';

const RESTART_SECONDS = 0.3;
const MESSAGES = 100;

let application;
let browser;

before(async () => {
  application = await Application.start(['--restart-seconds', RESTART_SECONDS]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await application?.stop();
});

const enter = (t, login, channel, options = {}, where = application) => enterAt(where, t, login, channel, options);

test('sequence 1: connection and subscription', async (t) => {
  const page = await enter(t, 'alice', PRODUCTION);
  const { opened } = page.frames[0];
  assert.equal(opened, application.addresses.clients);
  const { sent } = page.frames.find(({ sent }) => sent?.subscriptions.length > 0);
  assert.equal(sent.sender, 'client');
  assert.equal(sent.token.split('.').length, 3);
  const { id } = (await (await application.user('alice')).call('channel', 'list')).channels.find(({ name }) => name === PRODUCTION);
  assert.deepEqual(sent.subscriptions[0], reader(id));
  const { received } = page.frames.find(({ received }) => received?.type === 'subscribed');
  assert.deepEqual(received, { type: 'subscribed', subscriptions: 3, heartbeat: 25, id: sent.since, resumed: true });
  assert.deepEqual(page.asked.filter((command) => !command.startsWith('user/')), ['page/load'], 'all that there is, at once');
  // And without a browser: the answer to the upgrade has come through nginx.
  const alice = await application.user('alice');
  const client = await Client.connect(t, application.addresses.clients);
  assert.equal((await client.subscribe([reader(id)], alice.token)).type, 'subscribed');
  assert.deepEqual(page.complaints, []);
});

test('sequence 2: a message and its notification, ephemeral connection closed by the server', async (t) => {
  const bob = await application.user('bob');
  const client = await Client.connect(t, application.addresses.clients);
  await client.subscribe([reader(bob.channels[PRODUCTION])], bob.token);
  const alice = await application.user('alice');
  const from = application.log().length;
  const { message, notified } = await alice.say(PRODUCTION, 'Bonjour', 'Line 3');
  assert.equal(notified, true);
  await until(() => client.notifications.length > 0, 'the notification has come');
  assert.deepEqual(client.notifications, [{
    type: 'notification',
    notification: {
      type: 'chat', page: 'message_reader', package: PACKAGE,
      filters: { values: { channel: bob.channels[PRODUCTION] } }, message,
    },
  }]);
  assert.deepEqual([message.login, message.title, message.text], ['alice', 'Line 3', 'Bonjour']);
  const { messages } = await bob.call('message', 'list', { channelid: bob.channels[PRODUCTION] });
  assert.deepEqual(messages.at(-1), message);
  // The publisher's connection: published, closed with 1000 by the server, and gone.
  const log = () => application.log().slice(from);
  await until(() => log().includes('published to 1 connection, 0 dropped'), 'a line in the log');
  const [, id] = /(\S+) published to 1 connection, 0 dropped/.exec(log());
  await until(() => log().includes(`${id} is gone`), 'the publisher is gone');
  const result = await application.publish({ package: PACKAGE, page: 'message_reader', filters: reader(bob.channels[PRODUCTION]).filters });
  assert.deepEqual([result.delivered, result.error], [1, null]);
});

test('sequence 3: Close 0x8 answered and everything of that client gone', async (t) => {
  const bob = await application.user('bob');
  const channel = bob.channels[PRODUCTION];
  const notification = { ...reader(channel), message: { id: 'none', login: 'alice', text: 'to nobody' } };
  const client = await Client.connect(t, application.addresses.clients);
  const from = application.log().length;
  await client.subscribe([reader(channel)], bob.token);
  // The log is written a moment later.
  await until(() => application.log().slice(from).includes('has 1 subscription'), 'a line in the log');
  const [, id] = /(\S+) has 1 subscription/.exec(application.log().slice(from));
  assert.equal((await application.publish(notification)).delivered, 1);
  client.socket.close(1000, 'bye');
  assert.equal((await client.closed).code, 1000);
  await until(() => application.log().slice(from).includes(`${id} is gone`), 'the client is gone');
  assert.equal((await application.publish(notification)).delivered, 0);
  // The same when a browser closes its page.
  const page = await enter(t, 'bob', PRODUCTION);
  assert.equal((await application.publish(notification)).delivered, 1);
  await page.close();
  await until(async () => (await application.publish(notification)).delivered === 0, 'the page is gone');
});

test('sequence 4: Ping answered by Pong', async (t) => {
  const impatient = await Application.start([], { CRIEUR_PING_INTERVAL: '1', CRIEUR_PONG_TIMEOUT: '1' });
  t.after(() => impatient.stop());
  const bob = await impatient.user('bob');
  const client = await Client.connect(t, impatient.addresses.clients);
  await client.subscribe([reader(bob.channels[PRODUCTION])], bob.token);
  const pong = new Promise((resolve) => client.socket.once('pong', resolve));
  client.socket.ping('Marco');
  assert.equal(String(await pong), 'Marco');
  // What the browser's script can send, which has no Ping.
  client.send({ type: 'ping' });
  await until(() => client.messages.some(({ type }) => type === 'pong'), 'pong');
  // And from the server: a client that answers stays, one that doesn't is dropped.
  const deaf = await Client.connect(t, impatient.addresses.clients, { autoPong: false });
  await deaf.subscribe([reader(bob.channels[PRODUCTION])], bob.token);
  const page = await enter(t, 'bob', PRODUCTION, {}, impatient);
  const quiet = await page.evaluate(async ([url, token, subscription]) => {
    const socket = new WebSocket(url);
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(JSON.stringify({ sender: 'client', token, subscriptions: [subscription] }));
    // Nothing is sent from here on, but the browser's Pongs.
    await new Promise((resolve) => setTimeout(resolve, 4000));
    return socket.readyState;
  }, [impatient.addresses.clients, bob.token, reader(bob.channels[PRODUCTION])]);
  assert.equal(quiet, 1, 'the browser has answered');
  assert.equal((await deaf.closed).code, 1006);
  assert.equal(client.socket.readyState, 1);
});

test('sequence 5: connection lost, backoff, back, subscriptions renewed, missed messages brought', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const alice = await application.user('alice');
  await alice.say(PRODUCTION, 'before the loss');
  await shows(page, 'before the loss');
  const from = page.frames.length;
  const asked = page.asked.length;
  await application.kill('crieur', async () => {
    await says(page, '#status', 'Reconnecting');
    await shot(page, 'reconnecting');
    // The API goes on, and says that it could not notify.
    const missed = [];
    for (const text of ['missed 1', 'missed 2']) missed.push(await alice.say(PRODUCTION, text));
    assert.deepEqual(missed.map(({ notified }) => notified), [false, false]);
    assert.match(application.log('api'), /not notified: unreachable/);
    assert.ok(!(await texts(page)).includes('missed 1'));
    await until(() => page.frames.slice(from).filter(({ opened }) => opened).length > 1, 'it tries before the server is back');
  });
  await comesBack(page);
  await shows(page, 'missed 2');
  await page.isSubscribed(from);
  await alice.say(PRODUCTION, 'after the loss');
  await shows(page, 'after the loss');
  const lines = await texts(page);
  assert.deepEqual(lines.slice(-4), ['before the loss', 'missed 1', 'missed 2', 'after the loss'], 'each once, in order');
  assert.ok(!page.asked.slice(asked).includes('message/list'), 'and the API was not asked');
});

test('crieur is killed again and again while A and B talk: each message comes, once, and the API is not asked', async (t) => {
  const own = await Application.start(['--restart-seconds', RESTART_SECONDS]);
  t.after(() => own.stop());
  const [a, b] = await Promise.all([enter(t, 'alice', PRODUCTION, {}, own), enter(t, 'bob', PRODUCTION, {}, own)]);
  const said = [];
  for (let kill = 0; kill < 4; kill += 1) {
    const lines = (who) => Array.from({ length: 5 }, (_, number) => `${who} ${kill}.${number}.`);
    said.push(...lines('A'), ...lines('B'));
    const talk = Promise.all([chat(a, lines('A')), chat(b, lines('B'))]);
    await shows(a, `A ${kill}.1.`);
    await own.kill();
    await talk;
    await Promise.all([comesBack(a), comesBack(b)]);
  }
  const bob = await own.user('bob');
  const { messages } = await bob.call('message', 'list', { channelid: bob.channels[PRODUCTION] });
  const kept = messages.map(({ text }) => text);
  assert.deepEqual(kept.toSorted(), said.toSorted());
  for (const page of [a, b]) {
    await page.waitForFunction((count) => document.querySelectorAll('#messages > li').length >= count, kept.length);
    assert.deepEqual(await texts(page), kept, 'each once, in order');
    // Notified, too: nothing was shown twice only because nothing was.
    await until(() => chatIn(page, 0).length >= kept.length, 'each was notified');
    assert.deepEqual(chatIn(page, 0).toSorted(), said.toSorted());
    await page.waitForFunction(() => !document.querySelector('.waiting'));
    const answers = page.frames.flatMap(({ received }) => (received?.type === 'subscribed' ? [received.resumed] : []));
    assert.deepEqual(answers, [true, true, true, true, true]);
    assert.deepEqual([count(page, 'page/load'), count(page, 'message/list')], [1, 0]);
  }
});

test('the history is lost: the API is asked once for each gap, and nothing is missing', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const alice = await application.user('alice');
  const said = [];
  const hear = async (text) => {
    said.push(text);
    return alice.say(PRODUCTION, text);
  };
  await hear('before all gaps');
  await shows(page, 'before all gaps');
  for (const gap of [1, 2]) {
    const asked = page.asked.length;
    const from = page.frames.length;
    // Published while the page is away: no outbox brings it.
    await cut(page);
    assert.equal((await hear(`lost in gap ${gap}`)).notified, true);
    rmSync(path.join(application.data, 'history'), { recursive: true });
    await application.kill();
    await comesBack(page);
    await shows(page, `lost in gap ${gap}`);
    await hear(`behind gap ${gap}`);
    await shows(page, `behind gap ${gap}`);
    const { received } = page.frames.slice(from).find(({ received }) => received?.type === 'subscribed');
    assert.deepEqual([received.resumed, received.reason], [false, 'unknown']);
    assert.deepEqual(page.asked.slice(asked).filter((command) => command === 'message/list'), ['message/list']);
  }
  assert.deepEqual((await texts(page)).slice(-said.length), said);
});

test('a message that is sent while crieur is down: saved, and so it says; the others get it later', async (t) => {
  const [a, b, late] = await Promise.all([enter(t, 'alice', PRODUCTION), enter(t, 'bob', PRODUCTION), enter(t, 'bob', PRODUCTION)]);
  const asked = [a, b].map((page) => page.asked.length);
  await application.kill('crieur', async () => {
    await Promise.all([a, b].map((page) => says(page, '#status', 'Reconnecting')));
    await chat(a, ['first while it is down', 'second while it is down']);
    const notes = await a.$$eval('#messages li:has(.waiting) p', (all) => all.map(({ textContent }) => textContent));
    assert.deepEqual(notes, ['first while it is down', 'second while it is down']);
    await says(a, '#messages .waiting', 'Saved');
    await shot(a, 'saved');
    assert.ok(!(await texts(b)).includes('first while it is down'));
    // Who loads the page now finds it there, without a position.
    await late.reload();
    await shows(late, 'second while it is down');
  });
  await Promise.all([a, b, late].map((page) => comesBack(page)));
  await shows(b, 'second while it is down');
  assert.deepEqual((await texts(b)).slice(-2), ['first while it is down', 'second while it is down']);
  await a.waitForFunction(() => !document.querySelector('.waiting'));
  assert.deepEqual([a, b].map((page, index) => page.asked.slice(asked[index]).includes('message/list')), [false, false]);
  assert.equal(count(late, 'message/list'), 1, 'without a position, it asks when its list is in force');
  assert.deepEqual((await texts(late)).slice(-2), ['first while it is down', 'second while it is down']);
});

test('a message between the rows of the page and its subscription appears', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const alice = await application.user('alice');
  await page.route('**/ic.php', async (route) => {
    if (commandIn(route.request()) !== 'page/load') return route.continue();
    const response = await route.fetch();
    assert.equal((await alice.say(PRODUCTION, 'between rows and list')).notified, true);
    await route.fulfill({ response });
  });
  await page.reload();
  await says(page, '#status', 'Live');
  await shows(page, 'between rows and list');
  assert.equal((await texts(page)).filter((text) => text === 'between rows and list').length, 1);
  assert.equal(count(page, 'message/list'), 0);
});

test('who is typing is shown, for a while, and never afterwards', async (t) => {
  const [a, b, c] = await Promise.all([enter(t, 'alice', PRODUCTION), enter(t, 'bob', PRODUCTION), enter(t, 'bob', 'General')]);
  const typing = (page) => page.textContent('#typing');
  const field = a.locator('[name=details]');
  await field.pressSequentially('Is anybody near machine 4');
  await says(b, '#typing', 'Alice is typing…');
  await shot(b, 'typing');
  assert.equal(count(a, 'channel/typing'), 1, 'however many keys');
  await a.click('#composer [type=submit]');
  await shows(b, 'Is anybody near machine 4');
  assert.equal(await typing(b), '', 'what was typed has come');

  await field.pressSequentially('Well');
  await says(b, '#typing', 'Alice is typing…');
  assert.equal(count(a, 'channel/typing'), 2, 'at once, for it is another message');
  await b.waitForFunction(() => document.querySelector('#typing').textContent === '');
  assert.ok(!(await texts(b)).includes('Well'), 'it ends by itself');

  const from = b.frames.length;
  await cut(b);
  await field.pressSequentially(' then');
  await until(() => count(a, 'channel/typing') === 3, 'it is told again after a while');
  // Through the same lane, and so behind it.
  await (await application.user('bob')).say(PRODUCTION, 'said meanwhile');
  await shows(a, 'said meanwhile');
  await comesBack(b);
  await shows(b, 'said meanwhile');
  assert.ok(!JSON.stringify(b.frames.slice(from)).includes('"typing"'));
  assert.deepEqual([await typing(a), await typing(b), await typing(c)], ['', '', ''], 'nor is it for oneself or for others');
  assert.ok(!JSON.stringify(c.frames).includes('"type":"typing"'));
});

test('what is said in the open channel is no question to the API, and what is said in another is one', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const alice = await application.user('alice');
  const asked = page.asked.length;
  await alice.say(PRODUCTION, 'in the open one');
  await shows(page, 'in the open one');
  await until(() => page.asked.slice(asked).includes('channel/read'), 'it is read; by now the API would have been asked');
  await alice.say('General', 'in another');
  await page.waitForSelector('#channels button:has-text("General") .unread');
  assert.deepEqual(page.asked.slice(asked).filter((command) => command.endsWith('/list')), ['channel/list']);
  await page.click('#channels button:has-text("General")');
  await shows(page, 'in another');
  await says(page, '#status', 'Live');
  assert.equal(count(page, 'message/list'), 1, 'once for a channel that is opened');
});

/** Lets the API answer 500 to what has this word, until what it gives is called. */
async function breakApi(page, word) {
  const fail = (route) =>
    route.request().postData().includes(`"${word}"`)
      ? route.fulfill({ status: 500, json: { error: { code: 'internal', detail: 'out of order' } } })
      : route.continue();
  await page.route('**/ic.php', fail);
  return () => page.unroute('**/ic.php', fail);
}

test('an API that fails leaves no gap under "Live"', async (t) => {
  // Without a history the API is asked whenever the connection was lost.
  const forgetful = await Application.start([], { CRIEUR_HISTORY_SECONDS: '0' });
  t.after(() => forgetful.stop());
  const page = await enter(t, 'bob', PRODUCTION, {}, forgetful);
  const alice = await forgetful.user('alice');
  await alice.say(PRODUCTION, 'before the gap');
  await shows(page, 'before the gap');
  await cut(page);
  // More than the page asks for again in any case.
  const missed = Array.from({ length: 25 }, (_, number) => `gap ${number}`);
  for (const text of missed) await alice.say(PRODUCTION, text);
  const mend = await breakApi(page, 'list');
  await comesBack(page, 'Incomplete');
  await shot(page, 'incomplete');
  // What comes meanwhile is shown, and is not taken for the end of what is known.
  await alice.say(PRODUCTION, 'after the gap');
  await shows(page, 'after the gap');
  assert.ok(!(await texts(page)).includes('gap 0'));
  assert.match(await page.textContent('#status'), /Incomplete/);
  await mend();
  await says(page, '#status', 'Live');
  assert.deepEqual(await texts(page), ['before the gap', ...missed, 'after the gap']);
});

test('an API that fails when the page or a channel is opened is asked again', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const fails = async (word, open, isRight) => {
    const mend = await breakApi(page, word);
    await open();
    await says(page, '#status', 'Incomplete');
    assert.ok(!(await page.$eval('#messages', (list) => getComputedStyle(list, '::after').content)).includes('Nothing has been said'));
    await mend();
    await says(page, '#status', 'Live');
    assert.ok((await texts(page)).length > 0);
  };
  await fails('load', () => page.reload());
  await (await application.user('alice')).say('General', 'to be seen');
  await fails('message', () => page.click('#channels button:has-text("General")'));
});

test('a channel that is opened is shown at once where crieur is away or silent, and is complete in the end', async (t) => {
  const page = await enter(t, 'bob', 'General');
  const alice = await application.user('alice');
  await alice.say(PRODUCTION, 'there before');
  await cut(page);
  await page.click('#channels button:has-text("Production")');
  await shows(page, 'there before');
  await alice.say(PRODUCTION, 'meanwhile');
  await comesBack(page);
  await shows(page, 'meanwhile');
  // A link that is dead looks open: what is sent goes nowhere.
  await page.evaluate(() => {
    WebSocket.prototype.send = () => {};
  });
  await alice.say('General', 'over a dead link');
  await page.click('#channels button:has-text("General")');
  await shows(page, 'over a dead link');
  assert.match(await page.textContent('#status'), /Catching up/);
});

test('"Live" is shown when the list is in force, and not before', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const alice = await application.user('alice');
  await page.evaluate(() => {
    const { send } = WebSocket.prototype;
    globalThis.held = [];
    WebSocket.prototype.send = function (data) {
      held.push(() => send.call(this, data));
    };
    globalThis.release = () => {
      WebSocket.prototype.send = send;
      for (const go of held) go();
    };
  });
  await application.kill();
  await comesBack(page, 'Catching up');
  await page.waitForFunction(() => held.length > 0);
  await alice.say(PRODUCTION, 'while the list is on its way');
  await page.evaluate(() => release());
  await says(page, '#status', 'Live');
  await shows(page, 'while the list is on its way');
});

test('a send that fails takes nothing away', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION);
  const { channels } = await application.user('bob');
  /** Sends, and lets the API fail once `meanwhile` is done. */
  const fail = async (text, meanwhile) => {
    let answer;
    const route = (request) => {
      if (request.request().postData().includes('"add"')) answer = () => request.fulfill({ status: 500, json: { error: { code: 'internal', detail: 'out of order' } } });
      else request.continue();
    };
    await page.route('**/ic.php', route);
    await say(page, text);
    await until(() => answer, 'it is on its way');
    await meanwhile();
    await answer();
    await says(page, '#composer .fault', 'out of order');
    await page.unroute('**/ic.php', route);
  };
  const details = () => page.inputValue('[name=details]');
  const isEndShown = () =>
    page.$eval('#messages', (list) => list.lastElementChild.getBoundingClientRect().bottom <= list.getBoundingClientRect().bottom);
  const open = async (channel) => {
    await page.click(`[data-channel="${channels[channel]}"]`);
    await says(page, '#status', 'Live');
  };

  for (let number = 0; number < 20; number += 1) await (await application.user('bob')).say(PRODUCTION, `to fill the page ${number}`);
  await shows(page, 'to fill the page 19');
  assert.ok(await isEndShown());
  await fail('first', async () => {});
  assert.equal(await details(), 'first');
  await page.waitForFunction(() => document.querySelector('#composer .fault').offsetHeight > 0);
  await shot(page, 'not-sent');
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  assert.ok(await isEndShown(), 'the fault hides what was said last');

  await fail('second', () => page.locator('[name=details]').pressSequentially('typed since'));
  assert.equal(await details(), 'second\ntyped since');
  await page.keyboard.type(', and more');
  assert.equal(await details(), 'second\ntyped since, and more');
  await page.fill('[name=details]', '');

  await fail('for Production', async () => {
    await open('General');
    await page.fill('[name=details]', 'for General');
  });
  assert.match(await page.textContent('#composer .fault'), /Not sent to Production/);
  assert.equal(await details(), 'for General');
  await open(PRODUCTION);
  assert.equal(await details(), 'for Production');
  await page.click('#composer [type=submit]');
  await shows(page, 'for Production');
  assert.equal(await details(), '');
  await open('General');
  assert.equal(await details(), 'for General');
  assert.equal(await page.textContent('#composer .fault'), '');
});

test('sequence 6: A and B on channel "Production"', async (t) => {
  const [a, b] = await Promise.all([enter(t, 'alice', PRODUCTION), enter(t, 'bob', PRODUCTION)]);
  await say(a, 'Machine 4 is waiting for parts. Who is near the store?');
  await shows(b, 'waiting for parts');
  await say(b, 'I am. On my way, five minutes.');
  await shows(a, 'On my way');
  await shot(a, 'a-on-production');
  await shot(b, 'b-on-production');

  await a.evaluate(() => {
    globalThis.clicks = [];
    document.querySelector('#composer [type=submit]')
      .addEventListener('click', () => clicks.push(performance.timeOrigin + performance.now()), { capture: true });
  });
  await b.evaluate(() => {
    globalThis.seen = [];
    new MutationObserver((changes) => {
      if (!changes.some(({ addedNodes }) => addedNodes.length > 0)) return;
      // Behind the frame in which it is painted.
      requestAnimationFrame(() => setTimeout(() => seen.push(performance.timeOrigin + performance.now())));
    }).observe(document.querySelector('#messages'), { childList: true });
  });
  for (let number = 1; number <= MESSAGES; number += 1) {
    await say(a, `part ${number} of ${MESSAGES}`);
    await b.waitForFunction((count) => seen.length === count, number);
  }
  const clicks = await a.evaluate(() => clicks);
  const seen = await b.evaluate(() => seen);
  const took = clicks.map((at, index) => seen[index] - at).sort((left, right) => left - right);
  const at = (share) => took[Math.ceil(share * took.length) - 1].toFixed(0);
  console.log(`messaging: from A's click to B's screen, ${MESSAGES} messages: p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, all within ${at(1)} ms`);
  const expected = Array.from({ length: MESSAGES }, (_, index) => `part ${index + 1} of ${MESSAGES}`);
  assert.deepEqual((await texts(b)).slice(-MESSAGES), expected);
  await until(async () => (await texts(a)).length === (await texts(b)).length, 'A sees its own, each once');
  assert.deepEqual([...a.complaints, ...b.complaints], []);
});

test('C, who is on another channel, gets nothing, but a mark if it is one of theirs', async (t) => {
  const c = await enter(t, 'chloe', 'Maintenance');
  const b = await enter(t, 'bob', 'General');
  const a = await enter(t, 'alice', PRODUCTION);
  const from = c.frames.length;
  const text = 'only for Production';
  await say(a, text);
  // B is on another channel too, but a member of Production.
  await b.waitForSelector('#channels button:has-text("Production") .unread');
  await shot(b, 'unread');
  assert.ok(!(await texts(b)).includes(text));
  // This comes behind it: C would have got the other before.
  await (await application.user('alice')).say('Maintenance', 'for Maintenance');
  await shows(c, 'for Maintenance');
  assert.ok(!JSON.stringify(c.frames.slice(from)).includes(text));
  const { channels } = await application.user('chloe');
  const got = c.frames.slice(from).flatMap(({ received }) => received?.notification ?? []);
  assert.deepEqual([...new Set(got.map(({ filters }) => filters.values.channel))], [channels.Maintenance]);
  // Opened, it is read.
  await b.click('#channels button:has-text("Production")');
  await shows(b, text);
  await b.waitForFunction(() => !document.querySelector('#channels .unread'));
});

test('B, who is not allowed, cannot subscribe', async (t) => {
  const chloe = await application.user('chloe');
  const bob = await application.user('bob');
  const client = await Client.connect(t, application.addresses.clients);
  const answer = await client.subscribe([reader(bob.channels.General), reader(chloe.channels.Maintenance)], bob.token);
  assert.equal(answer.error.code, 'forbidden');
  assert.match(answer.error.detail, /subscriptions\[1\]/);
  // Not to everything either, and the set is taken whole or not at all.
  assert.equal((await client.subscribe([{ package: PACKAGE, page: 'message_reader' }], bob.token)).error.code, 'forbidden');
  assert.equal((await application.publish(reader(chloe.channels.Maintenance))).delivered, 0);
  const { status } = await bob.send('message', 'list', { channelid: chloe.channels.Maintenance });
  assert.equal(status, 403);
});

test('a page that types "sender":"server" in its console publishes nothing', async (t) => {
  // A page of somebody else has no policy that keeps it from other addresses.
  const b = await enter(t, 'bob', PRODUCTION, { bypassCSP: true });
  const a = await enter(t, 'alice', PRODUCTION);
  const forged = { type: 'chat', ...reader((await application.user('bob')).channels[PRODUCTION]), message: { id: '9', login: 'alice', text: 'forged' } };
  const from = a.frames.length;
  for (const url of [application.addresses.clients, application.addresses.apps]) {
    const said = await b.evaluate(([url, notification]) => new Promise((resolve) => {
      const socket = new WebSocket(url);
      const messages = [];
      socket.onopen = () => socket.send(JSON.stringify({ sender: 'server', notification }));
      socket.onmessage = ({ data }) => messages.push(JSON.parse(data));
      socket.onclose = ({ code }) => resolve({ code, messages });
    }), [url, forged]);
    assert.equal(said.code, 1008);
    assert.deepEqual(said.messages.map(({ error }) => error.code), ['forbidden']);
  }
  await say(b, 'an honest message');
  await shows(a, 'an honest message');
  assert.ok(!JSON.stringify(a.frames.slice(from)).includes('forged'));
});

test('what it looks like', async (t) => {
  const page = await enter(t, 'bob', PRODUCTION, { viewport: { width: 390, height: 760 }, colorScheme: 'dark' });
  await pause(200);
  await shot(page, 'phone');
  await page.click('#back');
  await shot(page, 'phone-channels');
  await page.click('#logout');
  await page.waitForSelector('#login');
  await shot(page, 'login');
  await page.fill('[name=login]', 'bob');
  await page.fill('[name=password]', 'wrong');
  await page.click('#login [type=submit]');
  await says(page, '#login .fault', 'wrong name or password');
});
