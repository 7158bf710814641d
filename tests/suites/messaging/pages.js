// The application's page in Chromium, and what its users do there.

import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { until } from './application.js';

const executablePath = process.env.CHROMIUM;
const screenshots = process.env.SCREENSHOTS;
const DEADLINE_MS = 30_000;

let browser;

/** Starts the browser, which is the caller's to close. */
export async function launch() {
  if (screenshots) mkdirSync(screenshots, { recursive: true });
  browser = await chromium.launch({
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
  return browser;
}

/** A browser of someone's own, logged in, with a channel open and in force; and all that it complained about. */
export async function enter(where, t, login, channel, options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1100, height: 720 }, ...options });
  t.after(() => context.close());
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  await page.addInitScript(gate);
  page.complaints = [];
  page.frames = [];
  /** What the API was asked. */
  page.asked = [];
  page.on('request', (request) => request.url().endsWith('/ic.php') && page.asked.push(commandIn(request)));
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && page.complaints.push(message.text()));
  page.on('websocket', (socket) => {
    page.frames.push({ opened: socket.url() });
    socket.on('framesent', ({ payload }) => page.frames.push({ sent: JSON.parse(payload) }));
    socket.on('framereceived', ({ payload }) => page.frames.push({ received: JSON.parse(payload) }));
    socket.on('close', () => page.frames.push({ closed: true }));
  });
  page.isSubscribed = (from = 0) =>
    until(() => page.frames.slice(from).some(({ received }) => received?.type === 'subscribed'), 'the page is subscribed');
  await page.goto(`${where.url}#${channel}`);
  await page.fill('[name=login]', login);
  await page.fill('[name=password]', 'demo');
  await page.click('#login [type=submit]');
  await says(page, '#status', 'Live');
  await says(page, '#channel-name', channel);
  await page.isSubscribed();
  return page;
}

/** In the page: lets a test cut its connections, and let new ones through. */
function gate() {
  const { WebSocket } = globalThis;
  const sockets = new Set();
  let isCut = false;
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(isCut ? `${url}-nowhere` : url);
      sockets.add(this);
    }
  };
  globalThis.cut = () => {
    isCut = true;
    for (const socket of sockets) socket.close();
  };
  globalThis.mend = () => {
    isCut = false;
  };
}

export async function cut(page) {
  await page.evaluate(() => cut());
  await says(page, '#status', 'Reconnecting');
}
/** What was cut is back; its client tries at once, as it does when a device is online again. */
export async function comesBack(page, status = 'Live') {
  await page.evaluate(() => mend());
  await until(() => page.evaluate((status) => {
    const { textContent } = document.querySelector('#status');
    if (textContent === 'Reconnecting…') dispatchEvent(new Event('online'));
    return textContent.startsWith(status);
  }, status), `the page is back, ${status}`);
}

/** `object/action` of a request to the API. */
export function commandIn(request) {
  const [{ amaiia_msg_srv: objects }] = request.postDataJSON().cmd;
  const [[object, actions]] = Object.entries(objects);
  return `${object}/${Object.keys(actions)[0]}`;
}
export const count = (page, command) => page.asked.filter((each) => each === command).length;

export const says = (page, selector, text) =>
  page.waitForFunction(([selector, text]) => document.querySelector(selector).textContent.includes(text), [selector, text]);
export const shows = (page, text) => says(page, '#messages', text);
export const texts = (page) => page.$$eval('#messages p', (all) => all.map((each) => each.textContent));
export const shot = async (page, name) => {
  if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name}.png`) });
};
export async function say(page, text) {
  await page.fill('[name=details]', text);
  await page.click('#composer [type=submit]');
}

/** Says these, one after the other, each as soon as the one before is shown. */
export async function chat(page, lines) {
  for (const text of lines) {
    await say(page, text);
    await shows(page, text);
  }
}
export const chatIn = (page, from) => page.frames.slice(from).flatMap(({ received }) => received?.notification?.message?.text ?? []);
