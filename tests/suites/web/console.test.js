// The console in a browser: what someone does with it, and what it looks like.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { WebSocketServer } from 'ws';
import { Link, Publisher, Server, clientToken, connect, secretFile } from './server.js';

const executablePath = process.env.CHROMIUM;
const screenshots = process.env.SCREENSHOTS;
const DEADLINE_MS = 30_000;
const KEY = '0123456789abcdef0123456789abcdef';

const profile = mkdtempSync(path.join(tmpdir(), 'crieur-console-'));
let browser;

before(async () => {
  if (screenshots) mkdirSync(screenshots, { recursive: true });
  // A context with a profile of its own is the only kind that has one.
  browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      // A name that was made to point here.
      '--host-resolver-rules=MAP evil.example 127.0.0.1',
    ],
  });
  browser.setDefaultTimeout(DEADLINE_MS);
});

after(async () => {
  await browser?.close();
  rmSync(profile, { recursive: true, force: true });
});

/** The console of `server`, and everything that the browser complained about. */
async function open(t, server, hash = '') {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    // A server without figures, one that is away and one that refuses to publish are no mistakes of the page.
    if (message.type() === 'error' && !/40[013]|426|ERR_CONNECTION_REFUSED|WebSocket connection/.test(message.text())) {
      page.complaints.push(message.text());
    }
  });
  await page.goto(`${server.page}${hash}`);
  return page;
}

const says = (page, selector, text) =>
  page.waitForFunction(([selector, text]) => document.querySelector(selector)?.textContent.includes(text), [selector, text]);
const shot = async (page, name, selector = 'body') => {
  if (screenshots) await page.locator(selector).screenshot({ path: path.join(screenshots, `${name}.png`) });
};
const rows = (page) => page.$$eval('#list > li', (all) => all.map((item) => item.textContent));

/** Where a server keeps its history, for the time of a test. */
function historyFolder(t) {
  const folder = mkdtempSync(path.join(tmpdir(), 'crieur-history-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return ['--history-directory', folder];
}

/** The console of a server that can be started anew before the page is let back in. */
async function openBehindLink(t, server) {
  const link = await Link.to(t, server);
  const page = await open(t, { page: link.url.replace('ws', 'http') });
  await says(page, '#subscribe-result', 'in force');
  return { link, page };
}

/** Kills the server and starts it; what is published meanwhile, the page has missed. */
async function restart(server, link, missed = []) {
  link.hold();
  await server.kill();
  await server.start();
  const publisher = await Publisher.connect(server);
  for (const notification of missed) await publisher.publish(notification);
  publisher.close();
  link.release();
}

async function subscribe(page, list) {
  await page.fill('#subscriptions', JSON.stringify(list));
  await page.click('#subscribe [type=submit]');
}

test('subscribes, shows what arrives, filters, pauses, copies', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#status', 'Online');
  await says(page, '#subscribe-result', '1 subscription in force');
  await page.click('#subscribe-examples >> text=Several');
  await page.click('#subscribe [type=submit]');
  await says(page, '#subscribe-result', '2 subscriptions in force');

  const publisher = await Publisher.connect(server);
  const room = { package: 'chat', page: 'room', filters: { values: { channel: '2' } }, message: { text: '<b>Salut</b>' } };
  assert.equal((await publisher.publish(room, 'chat')).delivered, 1);
  assert.equal((await publisher.publish({ channel: 'Production', text: 'Bonjour' })).delivered, 1);
  await page.waitForSelector('#list > li:nth-child(2)');
  const items = await rows(page);
  assert.match(items[0], /Production.*Bonjour/s);
  assert.match(items[1], /chat.*chat \/ room · channel 2.*<b>Salut<\/b>/s);
  await says(page, '#received', '2');
  await page.waitForFunction(() => document.querySelector('#round-trip').textContent.includes('ms'));

  await page.fill('#filter', 'salut');
  await page.waitForFunction(() => document.querySelectorAll('#list > li').length === 1);
  await page.fill('#filter', '');
  await page.waitForFunction(() => document.querySelectorAll('#list > li').length === 2);

  await page.click('#pause');
  await publisher.publish({ channel: 'Production', text: 'meanwhile' });
  await says(page, '#summary', 'paused, 1 newer');
  assert.equal((await page.$$('#list > li')).length, 2);
  await page.click('#pause');
  await page.waitForSelector('#list > li:nth-child(3)');

  await browser.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: new URL(server.page).origin });
  await page.click('#list > li:last-child button');
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  const { id, ...message } = JSON.parse(copied);
  assert.deepEqual(message, { type: 'chat', notification: room });
  assert.equal(await page.textContent('#list > li:last-child code'), id);

  await page.click('#clear');
  await page.waitForSelector('#empty:not([hidden])');
  assert.deepEqual(page.complaints, []);
  publisher.close();
});

test('tells what is wrong with a subscription, and keeps the one before', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  await page.fill('#subscriptions', '[');
  await page.click('#subscribe [type=submit]');
  await says(page, '#subscribe-result', 'This is not JSON');
  assert.equal(await page.getAttribute('#subscriptions', 'aria-invalid'), 'true');
  await subscribe(page, [{ package: 'p' }]);
  await says(page, '#subscribe-result', 'subscriptions[0].page is missing');
  const publisher = await Publisher.connect(server);
  assert.equal((await publisher.publish({ channel: 'Production' })).delivered, 1);
  publisher.close();
});

test('a link carries the subscriptions', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server, `#${encodeURIComponent('["a","b"]')}`);
  await says(page, '#subscribe-result', '2 subscriptions in force');
});

const LINK = 'Open the link that the server printed in its terminal, or ';
const REMEDY = `${LINK}start it with --publish-token-file`;
const TOKEN_REMEDY = `${LINK}enter a publish token`;

test('publishing without a key and a token is refused, and the remedy is said', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#status', 'Online');
  assert.equal(await page.isVisible('#token'), true);
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', `A browser needs permission. ${REMEDY}`);
  assert.equal(await page.textContent('#received'), '0');
  assert.deepEqual(page.complaints, []);
});

test('opened with the link that the server printed, it publishes, also after a reload', async (t) => {
  const server = await Server.atTerminal(t);
  const page = await open(t, server, server.key);
  await says(page, '#subscribe-result', 'in force');
  // Nobody reads the key in the address, and what is subscribed to is there as ever.
  assert.equal(new URL(page.url()).hash, `#${encodeURIComponent('["Production"]')}`);
  assert.equal(await page.isVisible('#token'), false);
  assert.equal(await page.isVisible('#has-key'), true);
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached 1 subscriber');
  await page.waitForSelector('#list > li');
  await page.reload();
  await says(page, '#subscribe-result', 'in force');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached 1 subscriber');
  // It is in this tab alone.
  const [, key] = server.key.split('=');
  const elsewhere = await page.evaluate(() => JSON.stringify([{ ...localStorage }, document.cookie, location.href, history.state]));
  assert.ok(!elsewhere.includes(key), elsewhere);
  const other = await open(t, server);
  await says(other, '#subscribe-result', 'in force');
  await other.click('#publish [type=submit]');
  await says(other, '#publish-result', REMEDY);
  // The link may be opened where the page is already.
  await other.evaluate((hash) => (location.hash = hash), server.key);
  await other.waitForSelector('#has-key:not([hidden])');
  assert.equal(await other.textContent('#publish-result'), '');
  assert.equal(new URL(other.url()).hash, `#${encodeURIComponent('["Production"]')}`);
  await other.click('#publish [type=submit]');
  await says(other, '#publish-result', 'Reached 2 subscribers');
  assert.deepEqual([...page.complaints, ...other.complaints], []);
});

test('the key of an earlier start is forgotten, and the remedy is said', async (t) => {
  const server = await Server.atTerminal(t);
  const page = await open(t, server, server.key);
  await says(page, '#subscribe-result', 'in force');
  const { key } = server;
  await server.kill();
  await server.start();
  assert.notEqual(server.key, key);
  await says(page, '#subscribe-result', 'in force');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', `is of an earlier start of the server. ${REMEDY}`);
  assert.equal(await page.isVisible('#token'), true);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.goto(`${server.page}${server.key}`);
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached');
});

test('a program that takes over goes on with the key', async (t) => {
  const server = await Server.atTerminal(t);
  const page = await open(t, server, server.key);
  await says(page, '#subscribe-result', 'in force');
  server.process.kill('SIGUSR2');
  await page.waitForFunction(async () => /crieur_handovers?_total\S* 1/.test(await (await fetch('metrics')).text()));
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached 1 subscriber');
});

test('a page of another site can’t publish, even if it knows the key', async (t) => {
  const server = await Server.atTerminal(t);
  const watcher = await open(t, server);
  await says(watcher, '#subscribe-result', 'in force');
  const [, key] = server.key.split('=');
  const { port } = server;
  const other = createServer((_, response) => response.end('<!doctype html>'));
  t.after(() => other.close());
  await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve));
  const page = await browser.newPage();
  t.after(() => page.close());
  const attempts = ([port, key]) => {
    const body = '{"notification":{"channel":"Production","text":"evil"}}';
    const send = async (url, headers, mode) => {
      try {
        return (await fetch(url, { method: 'POST', headers, body, mode, credentials: 'include' })).status;
      } catch {
        return 'blocked';
      }
    };
    const json = { 'Content-Type': 'application/json' };
    const proof = { Authorization: `Bearer ${key}` };
    return Promise.all(
      ['127.0.0.1', 'localhost'].flatMap((host) => [
        fetch(`http://${host}:${port}/connections`, { headers: proof }).then(String, () => 'blocked'),
        fetch(`http://${host}:${port}/connections`).then(String, () => 'blocked'),
        send(`http://${host}:${port}/publish`, { ...json, ...proof }, 'cors'),
        send(`http://${host}:${port}/publish`, json, 'cors'),
        send(`http://${host}:${port}/publish`, {}, 'no-cors'),
      ]),
    );
  };
  for (const host of ['127.0.0.1', 'evil.example']) {
    await page.goto(`http://${host}:${other.address().port}/`);
    // Without CORS, the answer can't be read, whatever it is.
    const answers = await page.evaluate(attempts, [port, key]);
    for (const [at, answer] of answers.entries()) assert.equal(at % 5 === 4 && answer === 0 ? 'blocked' : answer, 'blocked');
  }
  await page.goto(`http://evil.example:${port}/`);
  const here = ([key]) =>
    fetch('publish', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${key}` },
      body: '{"notification":{"channel":"Production","text":"evil"}}',
    }).then(({ status }) => status);
  assert.equal(await page.evaluate(here, [key]), 403);
  // The console's own page may, with the same request.
  await watcher.evaluate(here, [key]);
  await says(watcher, '#received', '1');
});

test('publishing with a token shows how many it reached, and stores nothing', async (t) => {
  const token = 'correct-horse-battery-staple';
  const server = await Server.start(t, '--publish-token-file', secretFile(t, token));
  const [page, other] = [await open(t, server), await open(t, server)];
  for (const each of [page, other]) await says(each, '#subscribe-result', 'in force');
  await page.fill('#token', 'cheval – agrafe');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'A token is of visible ASCII characters');
  await page.fill('#token', 'wrong-horse-battery-staple');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'The server refuses this token');
  await page.fill('#token', token);
  await page.fill('#notification', '{"channel":"Production","price":1.0}');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached 2 subscribers');
  for (const each of [page, other]) await each.waitForSelector('#list > li');
  await page.fill('#notification', '{"channel":');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'This is not JSON');
  await page.fill('#notification', '{"price":1}');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'invalid-notification');
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
  assert.ok(!stored.includes('horse'), stored);
  await page.reload();
  assert.equal(await page.inputValue('#token'), '');
  assert.deepEqual(page.complaints, []);
});

test('what is typed is published byte for byte', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#status', 'Online');
  await page.fill('#notification', '{"channel":"a","price":1.0}');
  await page.fill('#token', 'secret');
  const [request] = await Promise.all([page.waitForRequest('**/publish'), page.click('#publish [type=submit]')]);
  assert.equal(request.postData(), '{"notification":{"channel":"a","price":1.0}}');
  assert.equal(request.headers().authorization, 'Bearer secret');
});

test('a server that wants tokens gets one, and it is stored nowhere', async (t) => {
  const server = await Server.start(t, '--client-key-file', secretFile(t, KEY));
  const page = await open(t, server);
  await says(page, '#notice', 'clients need a token');
  await says(page, '#status', 'Closed');
  await shot(page, 'token-wanted');
  // It has unfolded by itself, and is no field whose content a browser offers to store.
  assert.equal(await page.isVisible('#client-token'), true);
  assert.deepEqual(
    await page.$eval('#client-token', (field) => [field.type, field.autocomplete, getComputedStyle(field).webkitTextSecurity]),
    ['text', 'off', 'disc'],
  );
  const apply = async (token) => {
    await page.fill('#client-token', token);
    await page.click('#subscribe [type=submit]');
  };
  await apply(clientToken('another-key-another-key-another-key', ['Production'], 300));
  await says(page, '#notice', 'the token is damaged, or of another server');
  await apply(clientToken(KEY, ['Production'], -60));
  await says(page, '#notice', 'the token has expired');
  const token = clientToken(KEY, ['Production'], 300);
  await apply(` ${token}\n`);
  await says(page, '#subscribe-result', '1 subscription in force');
  assert.equal(await page.isHidden('#notice'), true);
  await subscribe(page, ['Production', 'Secret']);
  await says(page, '#subscribe-result', 'subscriptions[1] is not allowed by the token');

  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
  assert.ok(!stored.includes(token.slice(0, 20)), stored);
  await page.reload();
  assert.equal(await page.inputValue('#client-token'), '');
  assert.deepEqual(page.complaints, []);
});

test('a token that has expired is replaced, and nothing is missed', async (t) => {
  const server = await Server.start(t, '--client-key-file', secretFile(t, KEY));
  const page = await open(t, server);
  await says(page, '#notice', 'clients need a token');
  // With the leeway of 30 s it has 3 s to live.
  await page.fill('#client-token', clientToken(KEY, ['Production'], -27));
  await page.click('#subscribe [type=submit]');
  await says(page, '#subscribe-result', 'in force');
  await says(page, '#notice', 'the token has expired');
  assert.doesNotMatch(await page.textContent('#subscribe-result'), /in force/);
  const publisher = await Publisher.connect(server);
  await publisher.publish({ channel: 'Production', n: 1 });
  publisher.close();
  await page.fill('#client-token', clientToken(KEY, ['Production'], 300));
  await page.click('#subscribe [type=submit]');
  await says(page, '#back', ', 1 missed');
  await says(page, '#subscribe-result', '1 subscription in force');
});

test('what was missed is counted, and marked in the list', async (t) => {
  const server = await Server.start(t, ...historyFolder(t));
  const { link, page } = await openBehindLink(t, server);
  const publisher = await Publisher.connect(server);
  await publisher.publish({ channel: 'Production', text: 'before' });
  await says(page, '#list', 'before');
  await restart(server, link, [1, 2, 3].map((n) => ({ channel: 'Production', text: `missed ${n}` })));
  await says(page, '#back', ', 3 missed');
  assert.match(await page.textContent('#back'), /^\d\d:\d\d:\d\d Back after \d+ m?s, 3 missed$/);
  await says(page, '#list > li:first-child', 'Back');
  const items = await rows(page);
  const order = [/Back, 3 missed: below/, /missed 3/, /missed 2/, /missed 1/, /Connection lost for \d+ m?s/, /before/];
  assert.equal(items.length, order.length);
  for (const [at, pattern] of order.entries()) assert.match(items[at], pattern);
  await says(page, '#received', '4');

  // Marks stay where a filter is, and are nothing to copy or to count.
  await page.fill('#filter', 'missed 2');
  await says(page, '#summary', '1 shown of 4 kept');
  assert.equal((await rows(page)).length, 3);
  await page.click('#clear');
  assert.equal(await page.isVisible('#empty'), true);
  assert.equal(await page.textContent('#back'), '');
  await restart(server, link);
  await says(page, '#back', ', nothing missed');
  assert.deepEqual(page.complaints, []);
});

test('a gap is told with its reason, and marked in the list; what was said before is not', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  const publisher = await Publisher.connect(server);
  await says(page, '#subscribe-result', '1 subscription in force');
  await publisher.publish({ channel: 'Production', text: 'before' });
  await says(page, '#list', 'before');
  await subscribe(page, [{ package: 'p' }]);
  await says(page, '#subscribe-result', 'page is missing');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'A browser needs permission');
  await server.kill();
  await says(page, '#subscribe-result', 'Not subscribed');
  await says(page, '#status', 'Reconnecting');
  assert.equal(await page.textContent('#history'), '');
  await server.start();
  await says(page, '#subscribe-result', '1 subscription in force, of the earlier list');
  assert.equal(await page.textContent('#publish-result'), '');
  assert.match(await page.textContent('#back'), /Gap after \d+ m?s: the server has lost its history, or is another one$/);
  const another = await Publisher.connect(server);
  await another.publish({ channel: 'Production', text: 'after' });
  await says(page, '#list > li:first-child', 'after');
  const items = await rows(page);
  assert.equal(items.length, 3);
  assert.match(items[1], /Something may be missing here: the server has lost its history/);
  assert.match(items[2], /before/);
  another.close();
});

test('a mark is shown while the list is paused behind it, and what comes after it is not', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  const publish = async (text) => {
    const publisher = await Publisher.connect(server);
    await publisher.publish({ channel: 'Production', text });
    publisher.close();
  };
  await publish('before');
  await says(page, '#list', 'before');
  await page.click('#pause');
  await server.kill();
  await server.start();
  await says(page, '#list > li:first-child', 'Something may be missing here');
  await publish('after');
  await says(page, '#summary', 'paused, 1 newer');
  assert.equal((await rows(page)).length, 2);
  await page.click('#pause');
  await says(page, '#list > li:first-child', 'after');
  assert.equal((await rows(page)).length, 3);
});

test('shows ids, the position, and how far the history reaches', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#history', 'History: empty');
  const publisher = await Publisher.connect(server);
  const { id } = await publisher.publish({ channel: 'Production', text: 'x'.repeat(2_000) });
  await says(page, '#list > li:first-child code', id);
  await says(page, '#position', id);
  await says(page, '#history', 'kept');
  assert.match(await page.textContent('#history'), /^History: 1 kept, 2[.\d]* KiB, the oldest \d+ m?s old$/);
  // What isn't kept has no id to show.
  publisher.socket.send(JSON.stringify({ sender: 'server', keep: false, notification: { channel: 'Production', typing: 'bob' } }));
  await new Promise((resolve) => publisher.waiting.push(resolve));
  await says(page, '#list > li:first-child', 'typing');
  assert.equal(await page.$('#list > li:first-child code'), null);
  publisher.close();
});

test('a history that is off is shown as such', async (t) => {
  const server = await Server.start(t, '--history-bytes', '0');
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  await says(page, '#history', 'History: empty');
  const publisher = await Publisher.connect(server);
  await publisher.publish({ channel: 'Production' });
  await says(page, '#history', 'History: off');
  publisher.close();
  await server.kill();
  await says(page, '#subscribe-result', 'Not subscribed');
  await server.start();
  await says(page, '#list > li:first-child', 'Something may be missing here');
  assert.match(await page.textContent('#back'), /Gap after \d+ m?s/);
});

test('counts down when the server is gone, and is back with it; both pages are', async (t) => {
  const server = await Server.start(t);
  const pages = [await open(t, server), await open(t, server)];
  for (const page of pages) {
    await says(page, '#subscribe-result', 'in force');
  }
  await server.kill();
  for (const page of pages) {
    await says(page, '#status', 'Reconnecting');
    // Both at once: between two looks it may be trying.
    await page.waitForFunction(() =>
      /^in \d+ s$/.test(document.querySelector('#countdown').textContent) && document.querySelector('#wake').checkVisibility());
  }
  await shot(pages[0], 'reconnecting');
  await server.start();
  for (const page of pages) await says(page, '#status', 'Online');
  const publisher = await Publisher.connect(server);
  let delivered = 0;
  while (delivered < 2) ({ delivered } = await publisher.publish({ channel: 'Production', text: 'back' }));
  for (const page of pages) {
    await page.waitForSelector('#list > li');
    assert.deepEqual(page.complaints, []);
  }
  publisher.close();
});

test('a server that says when to come back is not hurried', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  // It lasts for a second: watched from before.
  const isTold = page.waitForFunction(() =>
    document.querySelector('#status').textContent.includes('Reconnecting: the server is stopping') &&
    document.querySelector('#wake').checkVisibility() === false);
  await Promise.all([isTold, server.terminate()]);
});

test('a server that refuses for good is shown as such', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  const refusing = new WebSocketServer({ port: 0 });
  t.after(() => refusing.close());
  await page.routeWebSocket(/\/$/, (socket) => socket.close({ code: 1008, reason: '{"reason":"forbidden"}' }));
  await page.reload();
  await says(page, '#status', 'Closed');
  await says(page, '#notice', 'forbidden');
});

test('the policy holds: no markup from text, nothing from elsewhere', async (t) => {
  const server = await Server.start(t);
  const other = await Server.start(t);
  const page = await open(t, server);
  const outcome = await page.evaluate(async (elsewhere) => {
    const tried = async (what) => {
      try {
        await what();
        return 'allowed';
      } catch {
        return 'blocked';
      }
    };
    return {
      markup: await tried(() => (document.createElement('div').innerHTML = '<b></b>')),
      elsewhere: await tried(() => fetch(elsewhere)),
      here: await tried(() => fetch('crieur.js')),
    };
  }, `${other.page}crieur.js`);
  assert.deepEqual(outcome, { markup: 'blocked', elsewhere: 'blocked', here: 'allowed' });
});

test('a page of another origin can import the client and use it', async (t) => {
  const server = await Server.start(t);
  const page = await browser.newPage();
  t.after(() => page.close());
  const answer = await page.evaluate(
    async ([source, url]) => {
      const { Crieur } = await import(source);
      const crieur = new Crieur(url);
      const answer = await crieur.subscribe(['a', 'b']);
      crieur.close();
      return answer;
    },
    [`${server.page}crieur.js`, server.url],
  );
  assert.deepEqual(answer, { subscriptions: 2, heartbeat: 25 });
});

test('thousands of notifications do not slow it down', async (t) => {
  const server = await Server.start(t, '--send-queue-bytes', String(64 * 1024 * 1024));
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  const publisher = await Publisher.connect(server);
  const count = 20_000;
  const began = performance.now();
  const answers = [];
  for (let n = 1; n <= count; n += 1) answers.push(publisher.publish({ channel: 'Production', n, text: 'x'.repeat(100) }));
  await Promise.all(answers);
  await says(page, '#received', count.toLocaleString('en'));
  const seconds = (performance.now() - began) / 1000;
  // It is alive as soon as they are there: the newest is shown, and an answer comes at once.
  await says(page, '#list > li:first-child pre', `"n": ${count},`);
  assert.equal((await page.$$('#list > li')).length, 200);
  const filterBegan = performance.now();
  await page.fill('#filter', `"n":${count - 5_000},`);
  await page.waitForFunction(() => document.querySelectorAll('#list > li').length === 1);
  const filterMs = performance.now() - filterBegan;
  console.log(`web: the console took ${count} notifications in ${seconds.toFixed(1)} s, and filtered what it kept in ${filterMs.toFixed(0)} ms`);
  assert.ok(filterMs < 3_000);
  await page.fill('#filter', '');
  await page.click('#more');
  assert.equal((await page.$$('#list > li')).length, 400);
  publisher.close();
});

test('shows the figures of a server in groups and in words, with what they change by', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await page.click('nav >> text=Server');
  await says(page, '#metrics-list', 'Clients connected');
  const figures = () =>
    page.$$eval('#metrics-list dt', (terms) =>
      Object.fromEntries(
        terms.map((term) => {
          const list = term.parentElement;
          const [value, change] = [term.nextElementSibling, term.nextElementSibling.nextElementSibling];
          return [term.textContent, { group: list.previousElementSibling.textContent, value: value.textContent, change: change.textContent }];
        }),
      ),
    );
  const first = await figures();
  assert.deepEqual(first['Clients connected'], { group: 'Connections', value: '1', change: '' });
  assert.deepEqual(first['Notifications delivered'], { group: 'Notifications', value: '0', change: '' });
  assert.match(first['Resident memory'].value, /^[\d.]+ MiB$/);
  assert.match(first['Running since'].value, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
  // Every figure of the server has a group.
  assert.deepEqual(Object.entries(first).filter(([, { group }]) => group === 'Others'), []);
  assert.deepEqual([...new Set(Object.values(first).map(({ group }) => group))].sort(), ['Connections', 'History', 'Memory and system', 'Notifications']);

  const publisher = await Publisher.connect(server);
  for (let n = 1; n <= 20; n += 1) await publisher.publish({ channel: 'Production', n });
  await page.waitForFunction(() => document.querySelector('#metrics-list').textContent.includes('Notifications delivered20'));
  const then = await figures();
  assert.match(then['Notifications delivered'].change, /^[\d.]+\/s$/);
  assert.ok(parseFloat(then['Notifications delivered'].change) > 1, 'some of 20 in 5 s');
  assert.match(then['Bytes read from peers'].change, /^[\d.]+ (KiB|B)\/s$/);
  assert.equal(then['Clients connected'].change, '');
  assert.match(then['Time to find the recipients of a notification'].value, /^mean [\d.]+ (µs|ms) of 20$/);

  assert.equal(await page.getAttribute('#metrics-raw', 'href'), 'metrics');
  const [raw] = await Promise.all([browser.waitForEvent('page'), page.click('#metrics-raw')]);
  await says(raw, 'body', 'crieur_connections{role="client"} 1');
  await raw.close();
  publisher.close();
});

/** What the rows of a list say. */
const listed = (page, id) => page.$$eval(`#${id} > li`, (all) => all.map((row) => row.innerText.replaceAll(/\s+/g, ' ')));

test('operators see what connections do, what was published and refused, and why somebody got nothing', async (t) => {
  const server = await Server.atTerminal(t, '--client-key-file', secretFile(t, KEY));
  const page = await open(t, server, server.key);
  // It may not subscribe, which is another matter.
  await says(page, '#notice', 'clients need a token');
  const orders = (state) => ({ package: 'shop', page: 'orders', filters: { values: { state } } });
  const client = async (sub, list) => {
    const token = () => clientToken(KEY, ['Production', { package: 'shop', page: 'orders' }], 300, { sub });
    const made = connect(t, server.url, { token });
    await made.subscribe(list);
    return made;
  };
  await client('alice', [orders(['new', 'paid']), 'Production']);
  const bob = await client('<b>bob</b>', ['Production']);
  const publisher = await Publisher.connect(server);
  const { id } = await publisher.publish({ ...orders('paid'), order: 'zebra' });
  await publisher.publish({ channel: 'Production', typing: 'bob' }, undefined, { keep: false });
  publisher.socket.send('{"sender":"server","notification":{"package":"shop"}}');
  await new Promise((resolve) => publisher.waiting.push(resolve));

  await page.click('nav >> text=Server');
  await says(page, '#connections', 'alice');
  assert.equal(new URL(page.url()).search, '?server');
  assert.equal(await page.getAttribute('nav [aria-current=page]', 'href'), '?server');
  const [connections, newest, refusals] = [await listed(page, 'connections'), await listed(page, 'newest'), await listed(page, 'refusals')];
  assert.match(connections.find((row) => row.includes('alice')), /^live .* user alice · 127\.0\.0\.1:\d+ Show 2 subscriptions · 3 values$/);
  assert.ok(connections.some((row) => row.includes('user <b>bob</b>')), 'as text');
  assert.equal(newest.length, 2);
  assert.match(newest[0], /Reached 2 connections \d+ B/);
  assert.match(newest[1], new RegExp(`Reached 1 connection ${id} Show Explain`));
  assert.ok(!newest[1].includes('zebra'), 'no payload that nobody has asked for');
  assert.match(refusals[0], /notification\.page is missing invalid-notification/);
  assert.match((await listed(page, 'ended')).at(-1), /cut off: it showed no token/);

  // A payload and a list of subscriptions when they are asked for; and what has the focus keeps it.
  await page.focus('#newest >> text=Show');
  await page.keyboard.press('Enter');
  await says(page, '#newest pre', '"order": "zebra"');
  await page.waitForFunction(() => document.activeElement.textContent === 'Hide');
  await page.locator('#connections > li', { hasText: 'alice' }).getByText('Show').click();
  await says(page, '#connections pre', '"state": ["new", "paid"]');
  assert.ok((await listed(page, 'connections')).some((row) => row.includes('Its token is good until')));

  // Who would get it?
  const explain = async (notification, user) => {
    await page.fill('#explained', notification);
    await page.fill('#who', user);
    await page.click('#explain [type=submit]');
  };
  await explain(JSON.stringify(orders('lost')), 'alice');
  await says(page, '#explain-result', '0 of');
  const [alice] = await listed(page, 'explanations');
  assert.match(alice, /^doesn’t get it .* user alice .* none of its 2 subscriptions matches · live/);
  assert.match(alice, /it wants "new" or "paid" for "?state"?; the notification has "lost"/);
  await explain('{"channel":"Production"}', '');
  await says(page, '#explain-result', '2 of');
  assert.equal((await listed(page, 'explanations')).filter((row) => row.startsWith('gets it')).length, 2);
  // What a client was sent can be pasted as a whole.
  await explain(JSON.stringify({ type: 'notification', id, notification: orders('new') }), 'alice');
  await says(page, '#explain-result', '1 of');
  await explain('{"channel":"Production"}', 'nobody');
  await says(page, '#explanations', 'There is no open connection of user nobody');
  await page.click('#newest >> text=Explain');
  await says(page, '#explain-result', 'By the lists that ');
  assert.equal(await page.inputValue('#explained'), id);
  await explain('{"channel":', '');
  await says(page, '#explain-result', 'This is not JSON');
  await explain('{"price":1}', '');
  await says(page, '#explain-result', 'invalid-notification');

  // Some of the connections.
  await page.fill('#find-who', 'alice');
  await page.click('#find [type=submit]');
  await page.waitForFunction(() => document.querySelector('#connections').children.length === 1);
  await page.selectOption('#find-kind', 'connection');
  await page.click('#find [type=submit]');
  await page.waitForSelector('#connections-hint[data-kind=bad]');
  await page.fill('#find-who', '');
  await page.click('#find [type=submit]');
  await page.waitForSelector('#connections-hint[data-kind=""]', { state: 'attached' });
  await page.click('#counts >> text=live');
  await page.waitForFunction(() => document.querySelector('#connections').children.length === 2);
  bob.close();
  await page.waitForFunction(() => document.querySelector('#connections').children.length === 1);
  await says(page, '#ended', 'user <b>bob</b>');
  // What the next program notes begins anew.
  await server.kill();
  await says(page, '#server-result', 'can’t be reached');
  assert.equal(await page.isVisible('#server-lists'), false);
  await server.start();
  await page.waitForSelector('#server-lists:not([hidden])');
  assert.deepEqual(await listed(page, 'newest'), ['None']);
  publisher.close();
  assert.deepEqual(page.complaints, []);
});

test('operators need permission, and a publish token is one', async (t) => {
  const token = 'correct-horse-battery-staple';
  const server = await Server.start(t, '--publish-token-file', secretFile(t, token));
  const page = await open(t, server);
  await page.click('nav >> text=Server');
  await says(page, '#server-result', `A browser needs permission. ${TOKEN_REMEDY}`);
  assert.equal(await page.isVisible('#server-lists'), false);
  await page.click('#explain [type=submit]');
  await says(page, '#explain-result', TOKEN_REMEDY);
  await page.fill('#token', 'wrong-horse-battery-staple');
  await page.keyboard.press('Tab');
  await says(page, '#server-result', 'The server refuses this token');
  await page.fill('#token', token);
  await page.keyboard.press('Tab');
  await page.waitForSelector('#server-lists:not([hidden])');
  assert.equal(await page.textContent('#server-result'), '');
  await page.click('#explain [type=submit]');
  await says(page, '#explain-result', 'Would reach: 1 of 1 connection');
  // It is the same field in both views.
  await page.click('nav >> text=Client');
  assert.equal(await page.inputValue('#publish #token'), token);
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'Reached 1 subscriber');
  assert.deepEqual(page.complaints, []);
});

test('figures that it does not know keep their names; a server may show none', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  const text = '# HELP other_things_total Things.\n# TYPE other_things_total counter\nother_things_total{a="b"} 1234567\ncrieur_history_new 5\n';
  await page.route('**/metrics', (route) => route.fulfill({ body: text }));
  await page.reload();
  await page.click('nav >> text=Server');
  await says(page, '#metrics-list', 'Othersother_things_total{a="b"}1,234,567crieur_history_new5');
  await page.route('**/metrics', (route) => route.fulfill({ status: 403, body: 'not for you' }));
  await page.reload();
  await says(page, '#subscribe-result', 'in force');
  assert.equal(await page.isHidden('#metrics'), true);
});

test('can be used with the keyboard alone, and every control has a name', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  const press = async (key, times = 1) => {
    for (let time = 0; time < times; time += 1) await page.keyboard.press(key);
  };
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.textContent.trim());
  await press('Tab');
  assert.equal(await focused(), 'skip');
  await press('Tab', 9);
  assert.equal(await focused(), 'subscriptions', 'two ways to skip, two views, the fold, four examples, then the field');
  await press('Tab');
  assert.equal(await focused(), 'Client token');
  await press('Tab');
  await press('Enter');
  await says(page, '#subscribe-result', 'in force');
  const nameless = await page.$$eval('button, input, textarea, summary, a', (all) =>
    all.filter((one) => !(one.textContent.trim() || one.labels?.length || one.getAttribute('aria-label'))).map((one) => one.outerHTML),
  );
  assert.deepEqual(nameless, []);

  // What is subscribed to stays in the address.
  const { hash } = new URL(page.url());
  await page.focus('.skip');
  await press('Enter');
  assert.equal(await focused(), 'notifications');
  assert.equal(new URL(page.url()).hash, hash);
  await page.focus('.skip + .skip');
  await press('Enter');
  assert.equal(await focused(), 'forms');
});

test('on a phone the notifications come first, and the forms are folded', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  const boxes = async () => Promise.all(['#forms', '#figures', '#notifications'].map((id) => page.locator(id).boundingBox()));
  // In the order of the page, which is that of the keyboard.
  const order = () => page.$$eval('#client-view > *', (all) => all.map(({ id }) => id));
  await page.setViewportSize({ width: 1280, height: 900 });
  let [forms, figures, notifications] = await boxes();
  assert.ok(forms.x < figures.x && figures.x === notifications.x && forms.y === figures.y && figures.y < notifications.y);
  assert.deepEqual(await order(), ['forms', 'figures', 'notifications']);
  assert.equal(await page.isVisible('#subscriptions'), true);
  assert.equal(await page.isVisible('#notification'), true);

  await page.setViewportSize({ width: 360, height: 740 });
  await page.waitForFunction(() => !document.querySelector('#subscriptions').checkVisibility());
  [forms, figures, notifications] = await boxes();
  assert.ok(notifications.y < forms.y && forms.y < figures.y);
  assert.deepEqual(await order(), ['notifications', 'forms', 'figures']);
  assert.equal(await page.isVisible('#notification'), false);
  await page.focus('#forms summary');
  await page.keyboard.press('Enter');
  assert.equal(await page.isVisible('#subscriptions'), true);

  // The forms aren't below all that has come; and one that has something to say unfolds.
  const publisher = await Publisher.connect(server);
  for (let n = 1; n <= 50; n += 1) await publisher.publish({ channel: 'Production', n });
  await says(page, '#received', '50');
  [forms] = await boxes();
  assert.ok(forms.y < 1_000, `the forms begin at ${forms.y}`);
  await page.fill('#subscriptions', '[{"package":"p"}]');
  await page.click('#forms summary');
  assert.equal(await page.isVisible('#subscriptions'), false);
  await page.evaluate(() => document.querySelector('#subscribe').requestSubmit());
  await page.waitForSelector('#subscribe-result >> text=page is missing');
  publisher.close();
});

// With a resume and a gap in it.
for (const [name, size] of [['wide', { width: 1280, height: 1200 }], ['phone', { width: 360, height: 740 }]]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`looks right: ${name}, ${colorScheme}`, async (t) => {
      const server = await Server.start(t, ...historyFolder(t));
      const { link, page } = await openBehindLink(t, server);
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      if (name === 'phone') await page.click('#forms summary');
      await page.click('#subscribe-examples >> text=Several');
      await page.click('#subscribe [type=submit]');
      await says(page, '#subscribe-result', '2 subscriptions');
      if (name === 'phone') await page.click('#forms summary');
      const room = { package: 'chat', page: 'room', filters: { values: { channel: '2' } } };
      const bonjour = (n) => ({ channel: 'Production', message: { text: `Bonjour ${n}` } });
      const publish = async (from) => {
        const publisher = await Publisher.connect(server);
        await publisher.publish({ ...room, message: { id: String(from), login: 'alice', text: 'Salut !' } }, 'chat');
        await publisher.publish(bonjour(from + 1));
        publisher.close();
        await says(page, '#list > li:first-child', `Bonjour ${from + 1}`);
      };
      await publish(1);
      await restart(server, link, [bonjour(3), bonjour(4)]);
      await says(page, '#back', ', 2 missed');
      await publish(5);
      await shot(page, `${name}-${colorScheme}-resumed`);
      server.flags = [];
      await restart(server, link);
      await says(page, '#back', 'Gap after');
      await publish(7);
      await page.waitForFunction(() => {
        const points = document.querySelector('#chart polygon').getAttribute('points').split(' ');
        return points.some((point) => Number(point.split(',')[1]) < 39);
      });
      await says(page, '#history', 'kept');
      await shot(page, `${name}-${colorScheme}-gap`);
      for (const card of await page.$$('#forms > details:not([open]) > summary')) await card.click();
      await page.fill('#token', 'secret');
      await page.click('#publish [type=submit]');
      await says(page, '#publish-result', `This server has no publish tokens. ${REMEDY}`);
      await page.click('#client summary');
      // Nothing hangs out at the side.
      const overhang = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overhang, 0);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(/rgb\(2\d\d/.test(ground), colorScheme === 'light', ground);
      for (const part of ['forms', 'figures']) await shot(page, `${name}-${colorScheme}-${part}`, `#${part}`);
      await page.click('nav >> text=Server');
      if (name === 'phone') await page.click('#server-view summary');
      await page.waitForSelector('#server-lists:not([hidden])');
      await page.click('#newest >> text=Show');
      await says(page, '#newest pre', 'Bonjour');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
      await shot(page, `${name}-${colorScheme}-server`);
      assert.deepEqual(page.complaints, []);
    });
  }
}
