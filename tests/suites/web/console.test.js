// The console in a browser: what someone does with it, and what it looks like.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { WebSocketServer } from 'ws';
import { Link, Publisher, Server, clientToken, secretFile } from './server.js';

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
    // A server without figures, or one that is away, is no mistake of the page.
    if (message.type() === 'error' && !/426|ERR_CONNECTION_REFUSED|WebSocket connection/.test(message.text())) {
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
  await says(page, '#summary', 'paused, 1 more behind');
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

test('publishing without a token is refused, and says why', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#status', 'Online');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'this server has no publish tokens, or this one is wrong');
  assert.equal(await page.textContent('#received'), '0');
  assert.deepEqual(page.complaints, []);
});

test('publishing with a token shows how many it reached, and stores nothing', async (t) => {
  const token = 'correct-horse-battery-staple';
  const server = await Server.start(t, '--publish-token-file', secretFile(t, token));
  const [page, other] = [await open(t, server), await open(t, server)];
  for (const each of [page, other]) await says(each, '#subscribe-result', 'in force');
  await page.fill('#token', 'wrong-horse-battery-staple');
  await page.click('#publish [type=submit]');
  await says(page, '#publish-result', 'this server has no publish tokens, or this one is wrong');
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
  const sent = new Promise((resolve) => {
    page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => payload.includes('server') && resolve(payload)));
  });
  await says(page, '#status', 'Online');
  await page.fill('#notification', '{"channel":"a","price":1.0}');
  await page.fill('#token', 'secret');
  await page.click('#publish [type=submit]');
  assert.equal(await sent, '{"sender":"server","token":"secret","notification":{"channel":"a","price":1.0}}');
});

test('a server that wants tokens gets one, and it is stored nowhere', async (t) => {
  const server = await Server.start(t, '--client-key-file', secretFile(t, KEY));
  const page = await open(t, server);
  await says(page, '#notice', 'it wants tokens of its clients');
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
  await says(page, '#notice', 'it wants tokens');
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
  await says(page, '#publish-result', 'Not permitted');
  await server.kill();
  await says(page, '#subscribe-result', 'Nothing is in force');
  await says(page, '#status', 'Reconnecting');
  assert.equal(await page.textContent('#history'), '');
  await server.start();
  await says(page, '#subscribe-result', '1 subscription in force: the list before');
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
  await says(page, '#summary', 'paused, 1 more behind');
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
    await page.waitForFunction(() => /^in \d+ s$/.test(document.querySelector('#countdown').textContent));
    assert.equal(await page.isVisible('#wake'), true);
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
  await page.click('#metrics summary');
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

test('figures that it does not know keep their names; a server may show none', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  const text = '# HELP other_things_total Things.\n# TYPE other_things_total counter\nother_things_total{a="b"} 1234567\ncrieur_history_new 5\n';
  await page.route('**/metrics', (route) => route.fulfill({ body: text }));
  await page.reload();
  await page.click('#metrics summary');
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
  await press('Tab', 7);
  assert.equal(await focused(), 'subscriptions', 'two ways to skip, the fold, four examples, then the field');
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
  const order = () => page.$$eval('main > *', (all) => all.map(({ id }) => id));
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
      await says(page, '#publish-result', 'Not permitted');
      await page.click('#client summary');
      await page.click('#metrics summary');
      await page.waitForFunction(() => document.querySelector('#metrics-list').textContent.includes('/s'));
      // Nothing hangs out at the side.
      const overhang = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overhang, 0);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(/rgb\(2\d\d/.test(ground), colorScheme === 'light', ground);
      for (const part of ['forms', 'figures']) await shot(page, `${name}-${colorScheme}-${part}`, `#${part}`);
      assert.deepEqual(page.complaints, []);
    });
  }
}
