/**
 * The console: shows the connection of a client, lets it subscribe and publish, and shows what arrives.
 *
 * Owns the page and its two views; everything about the connection is the client's, and what else the page shows is in
 * the files beside this one.
 */

import { Crieur } from './crieur.js';
import { $, ask, button, clock, counted, duration, durationSince, pretty, readField, show, takeKey } from './console-page.js';
import { addMark, addNotification } from './console-list.js';
import { forgetFigures, noteNumbered, readMetrics } from './console-figures.js';
import { readServer } from './console-server.js';

const FIELD_WIDTH = 44;
const PING_EVERY_MS = 5_000;
const METRICS_EVERY_MS = 5_000;

const EXAMPLES = [
  {
    name: 'A channel',
    subscriptions: ['Production'],
    notification: { channel: 'Production', message: { text: 'Bonjour' } },
  },
  {
    name: 'A page',
    subscriptions: [{ package: 'shop', page: 'orders' }],
    notification: { package: 'shop', page: 'orders', order: 17 },
  },
  {
    name: 'With a filter',
    subscriptions: [{ package: 'shop', page: 'orders', filters: { values: { state: ['new', 'paid'] } } }],
    notification: { package: 'shop', page: 'orders', filters: { values: { state: 'paid' } }, order: 18 },
  },
  {
    name: 'Several',
    subscriptions: ['Production', { package: 'chat', page: 'room', filters: { values: { channel: ['2', '5'] } } }],
    notification: {
      package: 'chat',
      page: 'room',
      filters: { values: { channel: '2' } },
      message: { login: 'alice', text: 'Salut !' },
    },
  },
];

/** The server that this page is from, also where a proxy gives it a path. */
function serverUrl() {
  const url = new URL('.', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

// The connection.

const STATUSES = { connecting: 'Connecting', online: 'Online', waiting: 'Reconnecting', closed: 'Closed' };
const REASONS = {
  shutdown: 'the server is stopping',
  silent: 'the connection went silent',
  timeout: 'no answer',
  'slow-consumer': 'this page was too slow',
  overload: 'the server is overloaded',
  'token-missing': 'clients need a token',
  'token-expired': 'the token has expired',
  'token-invalid': 'the token is damaged, or of another server',
};
const GAPS = {
  expired: 'the history doesn’t go back that far',
  unknown: 'the server has lost its history, or is another one',
  forbidden: 'the token doesn’t allow the history',
  'no-history': 'this server has no history',
};

let crieur = null;
let clientToken = '';
let closeReason = null;
let onlineSince = null;
/** When what was in force was lost, until something is again; and how long that was. */
let lostAt = null;
let away = '';

/** A client in place of the one before, from where that was. */
function connect(token) {
  const since = crieur?.position;
  crieur?.close();
  clientToken = token;
  $('notice').hidden = true;
  crieur = new Crieur(serverUrl(), { since, token: token === '' ? null : () => token });
  crieur.on('status', statusChanged);
  crieur.on('gap', gap);
  crieur.on('subscribed', subscribed);
  crieur.on('resumed', resumed);
  crieur.on('notification', (message, text) => {
    addNotification(message, text);
    if (message.id !== undefined) noteNumbered();
  });
  crieur.on('error', failed);
}

function statusChanged({ status, code, reason }) {
  $('connection').dataset.status = status;
  const why = status === 'waiting' && REASONS[reason];
  $('status').textContent = why ? `${STATUSES[status]}: ${why}` : STATUSES[status];
  // A server that says why it closes says when to come back too, and the client obeys.
  $('wake').hidden = status !== 'waiting' || (code !== null && reason !== null);
  document.title = status === 'online' ? 'crieur' : `${STATUSES[status]} · crieur`;
  closeReason = reason;
  const wasOnline = onlineSince !== null;
  onlineSince = status === 'online' ? Date.now() : null;
  if (status === 'online') {
    crieur.wake();
    readAll();
    // What went wrong went wrong with the server before.
    for (const id of ['publish-result', 'explain-result']) if ($(id).dataset.kind === 'bad') show(id, '', '');
  } else {
    forgetFigures();
    if (wasOnline || crieur.position !== null) lostAt ??= Date.now();
    if (wasOnline || status === 'closed') show('subscribe-result', '', 'Not subscribed while offline.');
  }
  drawTimes();
}

function gap({ reason }) {
  const why = GAPS[reason] ?? reason;
  tell('bad', `Gap${lostAt === null ? '' : ` after ${durationSince(lostAt)}`}: ${why}`);
  addMark('bad', `Something may be missing here: ${why}`);
  lostAt = null;
}

function subscribed({ list }) {
  if (lostAt !== null) {
    away = durationSince(lostAt);
    addMark('', `Connection lost for ${away}`);
    lostAt = null;
  }
  // Where a list was just refused, that is the news.
  if ($('subscribe-result').dataset.kind !== 'bad') showInForce(list);
}

function resumed({ missed }) {
  const count = missed === 0 ? 'nothing' : missed.toLocaleString('en');
  tell('good', `Back after ${away}, ${count} missed`);
  addMark('', missed === 0 ? 'Back, nothing missed' : `Back, ${count} missed: below`);
}

const tell = (kind, text) => show('back', kind, `${clock(new Date())} ${text}`);

function failed(error) {
  if (crieur.status !== 'closed') return;
  const isToken = error.code === 'unauthorized';
  $('notice').textContent = isToken
    ? `The server refused this page: ${REASONS[closeReason] ?? closeReason}. Enter a client token under “Subscribe”.`
    : `${error.message}. Reload the page to try again.`;
  $('notice').hidden = false;
  if (isToken) show('subscribe-result', 'bad', 'A client token is needed.');
  $('client').open ||= isToken;
}

$('wake').addEventListener('click', () => crieur.wake());

function drawTimes() {
  const { retryAt, roundTrip } = crieur;
  const now = Date.now();
  $('countdown').textContent = retryAt === null ? '' : `in ${Math.max(0, Math.ceil((retryAt - now) / 1000))} s`;
  $('round-trip').textContent = roundTrip === null ? '–' : roundTrip < 1 ? '< 1 ms' : `${roundTrip} ms`;
  $('online-for').textContent = onlineSince === null ? '–' : duration(Math.floor((now - onlineSince) / 1000));
  const position = crieur.position === null ? '' : `Position ${crieur.position}`;
  // Somebody may be selecting it.
  if ($('position').textContent !== position) $('position').textContent = position;
}

// Forms.

function addExamples(id, write) {
  for (const example of EXAMPLES) {
    $(id).append(button(example.name, () => write(example)));
  }
}

const setSubscriptions = (list) => {
  $('subscriptions').value = pretty(list, FIELD_WIDTH);
  $('subscriptions').removeAttribute('aria-invalid');
};
const setNotification = (value) => {
  $('notification').value = pretty(value, FIELD_WIDTH);
  $('notification').removeAttribute('aria-invalid');
  $('command').textContent = `crieur publish '${JSON.stringify(value).replaceAll("'", "'\\''")}'`;
};

/** The list that was asked for last, as text. */
let asked = '';

function showInForce(list) {
  const count = counted(list.length, 'subscription');
  show('subscribe-result', 'good', `${count} in force${JSON.stringify(list) === asked ? '' : ', of the earlier list'}`);
}

/** What is subscribed to survives a reload, and can be sent to someone as a link. */
const keepInAddress = () => history.replaceState(null, '', `#${encodeURIComponent(asked)}`);

async function subscribe() {
  let list;
  try {
    list = readField('subscriptions');
    if (!Array.isArray(list)) throw new Error('Enter a list: […]');
  } catch (error) {
    show('subscribe-result', 'bad', error.message);
    return;
  }
  asked = JSON.stringify(list);
  keepInAddress();
  const token = $('client-token').value.trim();
  if (crieur === null || crieur.status === 'closed' || token !== clientToken) connect(token);
  show('subscribe-result', '', crieur.status === 'online' ? '' : 'Will be sent once online.');
  const client = crieur;
  try {
    await client.subscribe(list);
    // One that was in force already is no event.
    if (client.isSubscribed) showInForce(list);
  } catch (error) {
    // Why a client is closed is said elsewhere.
    if (client.status !== 'closed') show('subscribe-result', 'bad', error.message);
  }
}

$('subscribe').addEventListener('submit', (event) => {
  event.preventDefault();
  subscribe();
});

$('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    readField('notification');
  } catch (error) {
    show('publish-result', 'bad', error.message);
    return;
  }
  const submit = event.target.querySelector('[type=submit]');
  submit.disabled = true;
  show('publish-result', '', 'Publishing');
  try {
    // As it was typed: 1.0 stays 1.0.
    const { delivered, dropped } = JSON.parse(await ask('publish', `{"notification":${$('notification').value}}`));
    const reached = `Reached ${counted(delivered, 'subscriber')}`;
    show('publish-result', 'good', dropped ? `${reached}, ${dropped} cut off` : reached);
  } catch (error) {
    show('publish-result', 'bad', error.message);
  } finally {
    submit.disabled = false;
  }
});

// Clocks. Nothing is asked for while nobody looks.

setInterval(drawTimes, 250);
setInterval(() => {
  if (!document.hidden && crieur.status === 'online') crieur.wake();
}, PING_EVERY_MS);
setInterval(() => {
  if (!document.hidden) readAll();
}, METRICS_EVERY_MS);

/** Reads again what the view shows that the server doesn't send by itself. */
function readAll() {
  readMetrics();
  if (!$('server-view').hidden) readServer();
}

// The layout: what comes first on the page does for the keyboard, too.

const wide = matchMedia('(min-width: 56rem)');

function arrange() {
  $('client-view')[wide.matches ? 'append' : 'prepend']($('notifications'));
  for (const card of document.querySelectorAll('details.card')) card.open = wide.matches;
}

wide.addEventListener('change', arrange);
arrange();

for (const link of document.querySelectorAll('.skip')) {
  link.addEventListener('click', (event) => {
    // The hash is for the subscriptions.
    event.preventDefault();
    $(link.hash.slice(1)).focus();
  });
}

const views = [...document.querySelectorAll('nav a')];

/** Shows the view that the address names. */
function showView() {
  const isServer = location.search === '?server';
  for (const [at, link] of views.entries()) {
    if ((at === 1) === isServer) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  $('client-view').hidden = isServer;
  $('server-view').hidden = !isServer;
  $('publish').insertBefore($('permission'), $('publish').lastElementChild);
  if (isServer) $('permission-here').append($('permission'));
  for (const link of document.querySelectorAll('.skip')) link.hidden = (link.hash === '#server-view') !== isServer;
}

for (const link of views) {
  link.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.replaceState(null, '', link.getAttribute('href') + location.hash);
    showView();
    if (!$('server-view').hidden) readServer();
  });
}

// The start.

takeKey();
// The link may be opened where the page is already.
addEventListener('hashchange', () => {
  if (!takeKey()) return;
  keepInAddress();
  show('publish-result', '', '');
  readAll();
});
showView();

$('address').textContent = location.host;
$('metrics-raw').href = 'metrics';
addExamples('subscribe-examples', ({ subscriptions, notification }) => {
  setSubscriptions(subscriptions);
  setNotification(notification);
});
addExamples('publish-examples', ({ notification }) => setNotification(notification));

function fromLink() {
  try {
    const list = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    return Array.isArray(list) ? list : null;
  } catch {
    return null;
  }
}

setNotification(EXAMPLES[0].notification);
$('explained').value = $('notification').value;
setSubscriptions(fromLink() ?? EXAMPLES[0].subscriptions);
subscribe();
