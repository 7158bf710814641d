// The console in a browser: what someone does with it, and what it looks like.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { WebSocketServer } from 'ws';
import { Publisher, Server, secretFile } from './server.js';

const executablePath = process.env.CHROMIUM;
const screenshots = process.env.SCREENSHOTS;
const DEADLINE_MS = 30_000;

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
  page.waitForFunction(([selector, text]) => document.querySelector(selector).textContent.includes(text), [selector, text]);
const shot = async (page, name) => {
  if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name}.png`) });
};

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
  const items = await page.$$eval('#list > li', (all) => all.map((item) => item.textContent));
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
  assert.equal(copied, JSON.stringify({ type: 'chat', notification: room }));

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

test('a server that wants tokens of its clients is shown as such', async (t) => {
  const server = await Server.start(t, '--client-key-file', secretFile(t, '0123456789abcdef0123456789abcdef'));
  const page = await open(t, server);
  await says(page, '#notice', 'wants tokens of its clients');
  await says(page, '#status', 'Closed');
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

test('shows the figures of a server that has some', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await page.click('#metrics summary');
  await says(page, '#metrics-list', 'crieur_connections{role="client"}1');
  await page.route('**/metrics', (route) => route.fulfill({ status: 403, body: 'not for you' }));
  await page.reload();
  await says(page, '#subscribe-result', 'in force');
  assert.equal(await page.isHidden('#metrics'), true);
});

test('can be used with the keyboard alone, and every control has a name', async (t) => {
  const server = await Server.start(t);
  const page = await open(t, server);
  await says(page, '#subscribe-result', 'in force');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  for (let step = 0; step < 5; step += 1) await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'subscriptions', 'four examples, then the field');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await says(page, '#subscribe-result', 'in force');
  const nameless = await page.$$eval('button, input, textarea', (all) =>
    all.filter((one) => !(one.textContent.trim() || one.labels?.length || one.getAttribute('aria-label'))).map((one) => one.outerHTML),
  );
  assert.deepEqual(nameless, []);
});

// A phone's width, and so high that the picture has all of the page.
for (const [name, size] of [['wide', { width: 1280, height: 900 }], ['phone', { width: 360, height: 1900 }]]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`looks right: ${name}, ${colorScheme}`, async (t) => {
      const server = await Server.start(t);
      const page = await open(t, server);
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      await page.click('#subscribe-examples >> text=Several');
      await page.click('#subscribe [type=submit]');
      await says(page, '#subscribe-result', '2 subscriptions');
      const publisher = await Publisher.connect(server);
      const room = { package: 'chat', page: 'room', filters: { values: { channel: '2' } } };
      for (let n = 1; n <= 6; n += 1) {
        await publisher.publish({ ...room, message: { id: String(n), login: 'alice', text: 'Salut !' } }, 'chat');
        await publisher.publish({ channel: 'Production', message: { text: `Bonjour ${n}` } });
      }
      await page.waitForSelector('#list > li:nth-child(12)');
      await page.fill('#token', 'secret');
      await page.click('#publish [type=submit]');
      await says(page, '#publish-result', 'Not permitted');
      await page.waitForFunction(() => {
        const points = document.querySelector('#chart polygon').getAttribute('points').split(' ');
        return points.some((point) => Number(point.split(',')[1]) < 39);
      });
      // Nothing hangs out at the side.
      const overhang = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overhang, 0);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(/rgb\(2\d\d/.test(ground), colorScheme === 'light', ground);
      await shot(page, `${name}-${colorScheme}`);
      publisher.close();
    });
  }
}
