/**
 * The list of the notifications that this page has received. What is kept is a list, oldest first; what is shown are
 * the newest that pass the filter.
 *
 * Invariants: the list is drawn at most once a frame, and keeps and shows so much and no more, however many notifications
 * come.
 */

import { $, button, clock, contentOf, copyText, element, show } from './console-page.js';

const KEPT_MAX = 10_000;
const KEPT_CHARACTERS_MAX = 32 * 1024 * 1024;
const SHOWN_STEP = 200;
const ANNOUNCE_EVERY_MS = 5_000;
const CHART_SECONDS = 60;

let kept = [];
let keptCharacters = 0;
let marks = 0;
let received = 0;
/** The newest entry that was looked at for the drawing. */
let drawn = null;
let shownMax = SHOWN_STEP;
let pausedAt = null;
let needle = '';
let isDrawn = true;
let unannounced = 0;
let inThisSecond = 0;
const rates = new Array(CHART_SECONDS).fill(0);

export function addNotification(message, text) {
  received += 1;
  inThisSecond += 1;
  unannounced += 1;
  add({ message, text });
}

/** Says between two notifications what happened there. */
export function addMark(kind, mark) {
  marks += 1;
  add({ kind, mark, text: '' });
}

function add(entry) {
  kept.push({ number: received, time: new Date(), search: null, item: null, ...entry });
  keptCharacters += entry.text.length;
  // In one go, and not at each: shift() of a long list is slow.
  if (kept.length > KEPT_MAX * 1.2 || keptCharacters > KEPT_CHARACTERS_MAX * 1.2) forgetOldest();
  drawSoon();
}

function forgetOldest() {
  let from = 0;
  while (kept.length - from > KEPT_MAX || (keptCharacters > KEPT_CHARACTERS_MAX && from < kept.length - 1)) {
    keptCharacters -= kept[from].text.length;
    from += 1;
  }
  for (const entry of kept.splice(0, from)) {
    if (entry.mark) marks -= 1;
    entry.item?.remove();
  }
}

const passes = (entry) => {
  if (needle === '' || entry.mark) return true;
  entry.search ??= entry.text.toLowerCase();
  return entry.search.includes(needle);
};

function drawSoon() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(draw);
}

/** Adds what is new at the top, and takes what is too much from the end. */
function draw() {
  isDrawn = true;
  const last = pausedAt ?? received;
  const fresh = [];
  let newest = null;
  for (let at = kept.length - 1; at >= 0 && kept[at] !== drawn && fresh.length < shownMax; at -= 1) {
    if (kept[at].number > last) continue;
    newest ??= kept[at];
    if (passes(kept[at])) fresh.push(kept[at]);
  }
  drawn = newest ?? drawn;
  $('list').prepend(...fresh.map(itemOf));
  while ($('list').children.length > shownMax) dropLast();
  drawSummary();
}

function dropLast() {
  const item = $('list').lastElementChild;
  item.entry.item = null;
  item.remove();
}

/** Draws everything anew: what is to be shown has changed. */
function redraw() {
  while ($('list').lastElementChild) dropLast();
  drawn = null;
  draw();
}

function drawSummary() {
  const shown = $('list').children.length;
  const behind = pausedAt === null ? 0 : received - pausedAt;
  const notifications = kept.length - marks;
  const parts = [];
  if (notifications > 0 && (shown < kept.length || needle !== '')) {
    const shownMarks = $('list').querySelectorAll('.divider').length;
    parts.push(`${shown - shownMarks} shown of ${notifications.toLocaleString('en')} kept`);
  }
  if (pausedAt !== null) parts.push(`paused, ${behind.toLocaleString('en')} newer`);
  $('summary').textContent = parts.join(' · ');
  $('received').textContent = received.toLocaleString('en');
  $('empty').hidden = notifications > 0;
  $('more').hidden = shown < shownMax || shown >= kept.length;
}

function itemOf(entry) {
  const item = element('li', '', { entry });
  entry.item = item;
  const time = element('time', clock(entry.time), { dateTime: entry.time.toISOString() });
  if (entry.mark) {
    item.className = 'divider';
    item.dataset.kind = entry.kind;
    item.append(time, element('span', entry.mark));
    return item;
  }
  const { type, id, notification } = entry.message;
  const about = element('span', '', { className: 'about' });
  if (type !== 'notification') about.append(element('span', type, { className: 'type' }));
  about.append(aboutOf(notification));
  const copy = button('Copy', () => copyText(entry.text, copy), `Copy notification ${entry.number}`);
  item.append(time, about, copy, element('pre', contentOf(notification, entry.text)));
  if (id !== undefined) copy.before(element('code', id));
  return item;
}

/** What a notification is for, in a line. */
function aboutOf(notification) {
  const { channel, package: from, page, filters } = notification ?? {};
  const parts = [];
  if (from !== undefined) parts.push(`${from} / ${page}`);
  else if (channel !== undefined) parts.push(String(channel));
  const values = filters?.values;
  if (values && typeof values === 'object' && !Array.isArray(values)) {
    for (const [name, value] of Object.entries(values)) parts.push(`${name} ${[value].flat().join(', ')}`);
  }
  return parts.join(' · ');
}

$('filter').addEventListener('input', () => {
  needle = $('filter').value.trim().toLowerCase();
  shownMax = SHOWN_STEP;
  redraw();
});

$('pause').addEventListener('click', () => {
  pausedAt = pausedAt === null ? received : null;
  $('pause').setAttribute('aria-pressed', String(pausedAt !== null));
  draw();
});

$('clear').addEventListener('click', () => {
  kept = [];
  keptCharacters = 0;
  marks = 0;
  shownMax = SHOWN_STEP;
  show('back', '', '');
  if (pausedAt !== null) pausedAt = received;
  redraw();
});

$('copy-all').addEventListener('click', () => {
  const last = pausedAt ?? received;
  const lines = kept.filter((entry) => entry.text && entry.number <= last && passes(entry)).map((entry) => entry.text);
  copyText(lines.join('\n'), $('copy-all'));
});

$('more').addEventListener('click', () => {
  shownMax += SHOWN_STEP;
  redraw();
});

function drawChart() {
  rates.shift();
  rates.push(inThisSecond);
  $('rate').textContent = inThisSecond.toLocaleString('en');
  inThisSecond = 0;
  const most = Math.max(...rates, 5);
  const width = 240 / CHART_SECONDS;
  const points = rates.map((rate, at) => {
    const y = (40 - (rate / most) * 38).toFixed(1);
    return `${at * width},${y} ${(at + 1) * width},${y}`;
  });
  $('chart').firstElementChild.setAttribute('points', `0,40 ${points.join(' ')} 240,40`);
}

setInterval(drawChart, 1_000);
setInterval(() => {
  if (unannounced === 0) return;
  $('announcement').textContent = unannounced === 1 ? '1 new notification' : `${unannounced} new notifications`;
  unannounced = 0;
}, ANNOUNCE_EVERY_MS);
