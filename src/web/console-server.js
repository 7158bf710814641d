/**
 * What operators ask the server: who would get a notification and who not, its connections, its newest notifications,
 * and the publishes that it has refused.
 *
 * Invariants: nothing is asked for while nobody looks. A payload is shown only when somebody asks for it. A row that stays
 * the same stays in the page, with the focus that it may have.
 */

import { $, ask, button, bytes, clock, contentOf, counted, element, figure, pretty, readField, show } from './console-page.js';

/** What the states of connections are called. */
const STATES = {
  live: 'live',
  'catching-up': 'catching up',
  'list-waits': 'waiting for the history',
  'no-subscriptions': 'without subscriptions',
  'token-awaited': 'without a token yet',
  publisher: 'publishing',
};
const ENDS = {
  left: 'left',
  'slow-consumer': 'cut off: it was too slow',
  overload: 'cut off: the server was overloaded',
  'token-expired': 'cut off: its token has expired',
  'token-missing': 'cut off: it showed no token',
  'token-invalid': 'cut off: its token is damaged, or of another server',
};

/** Counts the readings. */
let reading = 0;
let state = '';
/** What was asked for beside what is always there: a connection, and payloads by their ids. */
let detail = null;
const payloads = new Map();

const at = (ms) => element('time', clock(new Date(ms)), { dateTime: new Date(ms).toISOString() });
const span = (className, text) => element('span', text, { className });
const code = (text) => element('code', text);
const who = ({ connection, user, peer }) => `${connection}${user === undefined ? '' : ` · user ${user}`}${peer ? ` · ${peer}` : ''}`;
/** A program notes what happens from its start on, also where it has taken over from another one. */
const sinceOf = (since) => `at most 100, since ${new Date(since).toLocaleString('sv')}`;
const endOf = ({ reason, cut_off }) => ENDS[reason] ?? (cut_off ? `cut off: ${reason}` : reason);

/** Shows a row for each of `values`; one that says the same as before stays. */
function fill(id, values, rowOf) {
  const list = $(id);
  const before = new Map([...list.children].map((row) => [row.dataset.says, row]));
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const buttonsOf = (row) => [...(row?.querySelectorAll('button') ?? [])];
  const focusedRow = focused?.closest('li');
  const [key, place] = [focusedRow?.dataset.key, buttonsOf(focusedRow).indexOf(focused)];
  const rows = values.map((value) => {
    const says = JSON.stringify(value);
    const row = before.get(says) ?? rowOf(value);
    row.dataset.says = says;
    row.dataset.key = value.id ?? value.connection ?? says;
    return row;
  });
  if (rows.length === 0) rows.push(element('li', 'None', { className: 'hint' }));
  if (rows.length !== list.children.length || rows.some((row, at) => row !== list.children[at])) list.replaceChildren(...rows);
  // Moving an element takes its focus.
  if (focused === null || focused === document.activeElement) return;
  buttonsOf(rows.find((row) => row.dataset.key === key))[place]?.focus();
}

/** Asks for all that is shown. */
export async function readServer() {
  reading += 1;
  const mine = reading;
  try {
    const answers = await Promise.all([readConnections(), readDetail(), read('notifications'), read('refusals')]);
    // What is asked for may have changed since.
    if (mine !== reading) return;
    drawConnections(answers[0], answers[1]);
    drawNotifications(answers[2]);
    drawRefusals(answers[3]);
    $('server-lists').hidden = false;
    show('server-result', '', '');
  } catch (error) {
    if (mine !== reading) return;
    // What was said before may not be so any more.
    $('server-lists').hidden = true;
    show('server-result', 'bad', error.message);
  }
}

const read = async (path) => JSON.parse(await ask(path));

// Connections.

async function readConnections() {
  const query = new URLSearchParams();
  if (state !== '') query.set('state', state);
  const asked = $('find-who').value.trim();
  if (asked !== '') query.set($('find-kind').value, asked);
  try {
    return await read(`connections?${query}`);
  } catch (error) {
    if (error.status !== 400) throw error;
    return { mistake: error.message };
  }
}

/** The connection whose subscriptions are shown. */
async function readDetail() {
  if (detail === null) return null;
  const { connections } = await read(`connections?connection=${detail}`);
  return connections[0] ?? null;
}

function drawConnections({ mistake, counts, connections, truncated, ended, scope, since }, one) {
  if (mistake !== undefined) {
    show('connections-hint', 'bad', mistake);
    return;
  }
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  drawCounts(counts, total);
  fill('connections', connections.map((entry) => (entry.connection === one?.connection ? one : entry)), connectionRow);
  const parts = [];
  if (truncated) parts.push(`The first ${connections.length} are shown: find others by user or address.`);
  if (scope === 'node') parts.push('Of this server alone: others share its Redis.');
  show('connections-hint', '', parts.join(' '));
  fill('ended', ended, endedRow);
  $('ended-since').textContent = sinceOf(since);
}

function drawCounts(counts, total) {
  if ($('counts').children.length === 0) {
    for (const word of ['', ...Object.keys(counts)]) {
      const choose = () => {
        state = word;
        readServer();
      };
      $('counts').append(element('button', '', { type: 'button', value: word, onclick: choose }));
    }
  }
  for (const each of $('counts').children) {
    const word = each.value;
    each.textContent = word === '' ? `${figure(total)} open` : `${figure(counts[word])} ${STATES[word] ?? word}`;
    each.hidden = word !== '' && word !== state && !(counts[word] > 0);
    each.setAttribute('aria-pressed', String(word === state));
  }
}

function connectionRow(entry) {
  const { connection, subscriptions, values, waiting, missed, numbered, list, token } = entry;
  const isOpen = list !== undefined;
  const toggle = button(isOpen ? 'Hide' : 'Show', () => {
    detail = isOpen ? null : connection;
    readServer();
  }, `${isOpen ? 'Hide' : 'Show'} the subscriptions of ${connection}`);
  const facts = [counted(subscriptions, 'subscription')];
  if (values > 0) facts.push(counted(values, 'value'));
  if (missed !== undefined) facts.push(`${figure(missed)} missed`);
  if (waiting > 0) facts.push(`${bytes(waiting)} not taken yet`);
  if (!numbered && subscriptions > 0) facts.push('without ids');
  const row = element('li', [span('type', STATES[entry.state] ?? entry.state), span('about', who(entry)), toggle, span('hint', facts.join(' · '))]);
  if (isOpen) row.append(element('pre', pretty(list)), ...tokenHint(token));
  return row;
}

function tokenHint(token) {
  if (token === undefined) return [];
  const until = new Date(token.expires).toLocaleString('sv');
  return [span('hint', `Its token is good until ${until}${token.history ? '' : ', without the history'}`)];
}

const endedRow = (entry) => element('li', [at(entry.at), span('about', who(entry)), span('hint', endOf(entry))]);

// Notifications.

function drawNotifications({ notifications, since }) {
  fill('newest', notifications.map((entry) => ({ ...entry, payload: payloads.get(entry.id) })), notificationRow);
  $('newest-since').textContent = sinceOf(since);
}

function notificationRow(entry) {
  const { id, delivered, dropped, repeated, cut_off: cutOff = [], payload } = entry;
  const facts = [bytes(entry.bytes)];
  if (entry.micros !== undefined) facts.push(`${figure(entry.micros)} µs`);
  if (entry.from !== undefined) facts.push(`from connection ${entry.from}`);
  const reached = repeated ? 'Published again, and sent to nobody' : `Reached ${counted(delivered, 'connection')}`;
  const row = element('li', [at(entry.at), span('about', dropped > 0 ? `${reached}, ${figure(dropped)} cut off` : reached)]);
  if (id !== undefined) {
    const isOpen = payload !== undefined;
    const toggle = button(isOpen ? 'Hide' : 'Show', () => (isOpen ? payloads.delete(id) && readServer() : showPayload(id)), `${isOpen ? 'Hide' : 'Show'} ${id}`);
    row.append(code(id), toggle, button('Explain', () => explainId(id), `Explain ${id}`));
  }
  row.append(span('hint', facts.join(' · ')));
  if (cutOff.length > 0) row.append(span('hint bad', `Cut off: ${cutOff.map(who).join('; ')}${dropped > cutOff.length ? ' and others' : ''}`));
  if (payload !== undefined) row.append(element('pre', payload));
  return row;
}

async function showPayload(id) {
  let text;
  try {
    const { notification } = await read(`notifications?id=${encodeURIComponent(id)}`);
    text = contentOf(notification, JSON.stringify(notification));
  } catch (error) {
    text = error.message;
  }
  payloads.set(id, text);
  readServer();
}

// Refusals.

function drawRefusals({ refusals, strangers, since }) {
  $('refusals-since').textContent = sinceOf(since);
  fill('refusals', refusals, refusalRow);
  fill('strangers', strangers, refusalRow);
}

const refusalRow = (entry) =>
  element('li', [at(entry.at), span('about', entry.detail), span('hint', [entry.code, entry.peer, entry.connection].filter(Boolean).join(' · '))]);

// Who would get it.

function explainId(id) {
  $('explain').closest('details').open = true;
  $('explained').value = id;
  $('explained').focus();
  explain();
}

async function explain() {
  const text = $('explained').value.trim();
  const isId = text !== '' && !/^\W/.test(text);
  const name = $('who').value.trim();
  const target = name === '' ? '' : `,${JSON.stringify($('who-kind').value)}:${JSON.stringify(name)}`;
  show('explain-result', '', 'Asking');
  try {
    const what = isId ? `"id":${JSON.stringify(text)}` : notificationOf(text);
    const answer = JSON.parse(await ask('explain', `{${what}${target}}`));
    drawExplained(answer, name === '' ? null : `${$('who-kind').value} ${name}`, isId);
  } catch (error) {
    show('explain-result', 'bad', error.message);
    $('explanations').replaceChildren();
  }
}

/** A notification as it was typed, or what a publisher sends or a client gets with it. */
function notificationOf(text) {
  const { notification, keep, key } = readField('explained');
  if (notification === undefined) return `"notification":${text}`;
  return JSON.stringify({ notification, keep, key }).slice(1, -1);
}

function drawExplained(answer, asked, isPast) {
  const { would_get: count, connections_open: open, connections, ended, truncated, repeated } = answer;
  const among = counted(open, 'connection');
  const unknown = isPast ? `By the lists that ${among} now have` : `Too many to count, of ${among}`;
  show('explain-result', count > 0 ? 'good' : '', count === undefined ? unknown : `Would reach: ${figure(count)} of ${among}`);
  const rows = connections.map(explainedRow);
  if (repeated !== undefined) rows.unshift(element('li', `Its key is known: it was published as ${repeated}.`, { className: 'hint' }));
  if (asked !== null && connections.length === 0) rows.push(element('li', `There is no open connection of ${asked}.`));
  rows.push(...ended.map(endedRow));
  if (truncated) rows.push(element('li', 'There are more than are shown.', { className: 'hint' }));
  $('explanations').replaceChildren(...rows);
}

function explainedRow(entry) {
  const { gets, detail, state: word, token, waiting, subscriptions = [], subscriptions_total: total } = entry;
  const verdict = gets === undefined ? 'not looked at' : gets ? 'gets it' : 'doesn’t get it';
  const mark = span('verdict', verdict);
  mark.dataset.kind = gets === undefined ? '' : gets ? 'good' : 'bad';
  const facts = [detail, STATES[word] ?? word];
  if (waiting > 0) facts.push(`${bytes(waiting)} not taken yet`);
  if (token?.allows === false) facts.push('its token doesn’t allow a subscription that matches');
  const row = element('li', [mark, span('about', who(entry)), span('hint', facts.join(' · '))]);
  const list = subscriptions.map(({ subscription, matches, detail }) => {
    const parts = [span('hint', matches ? 'matches' : detail)];
    if (subscription !== undefined) parts.unshift(code(JSON.stringify(subscription)));
    return element('li', parts, { className: matches ? 'good' : '' });
  });
  if (total > list.length) list.push(element('li', `and ${figure(total - list.length)} more`));
  if (list.length > 0) row.append(element('ul', list));
  return row;
}

$('explain').addEventListener('submit', (event) => {
  event.preventDefault();
  explain();
});
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  readServer();
});
$('token').addEventListener('change', () => {
  if (!$('server-view').hidden) readServer();
});
