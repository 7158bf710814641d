/**
 * The console: shows the connection of a client, lets it subscribe, and shows what arrives.
 *
 * Owns the page; everything about the connection is the client's. Invariants: what comes from the
 * server becomes text, never markup; the page is drawn at most once a frame, and keeps and shows so
 * much and no more, however many notifications come; the token is in its field and in the message.
 */

import { Crieur } from './crieur.js';

const KEPT_MAX = 10_000;
const KEPT_CHARACTERS_MAX = 32 * 1024 * 1024;
const SHOWN_STEP = 200;
/** What is longer is shown as it came, so far; it may also be nested deeper than a function can call itself. */
const TEXT_SHOWN_MAX = 4_000;
const LINE_WIDTH = 88;
const FIELD_WIDTH = 44;
const PING_EVERY_MS = 5_000;
const METRICS_EVERY_MS = 5_000;
const ANNOUNCE_EVERY_MS = 5_000;
const PUBLISH_TIMEOUT_MS = 10_000;
const CHART_SECONDS = 60;

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

const $ = (id) => document.getElementById(id);

/** The server that this page is from, also where a proxy gives it a path. */
const serverUrl = (path) => {
  const url = new URL(path, new URL('.', location.href));
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = '';
  url.hash = '';
  return url.href;
};

const crieur = new Crieur(serverUrl(''));

// The connection.

const STATUSES = { connecting: 'Connecting', online: 'Online', waiting: 'Reconnecting', closed: 'Closed' };
const REASONS = {
  shutdown: 'the server is stopping',
  silent: 'the link went silent',
  timeout: 'no answer',
  'slow-consumer': 'this page was too slow',
  overload: 'the server is overloaded',
};

let onlineSince = null;

crieur.on('status', ({ status, code, reason }) => {
  $('connection').dataset.status = status;
  const why = status === 'waiting' && REASONS[reason];
  $('status').textContent = why ? `${STATUSES[status]}: ${why}` : STATUSES[status];
  // A server that says why it closes says when to come back too, and the client obeys.
  $('wake').hidden = status !== 'waiting' || (code !== null && reason !== null);
  document.title = status === 'online' ? 'crieur' : `${STATUSES[status]} · crieur`;
  onlineSince = status === 'online' ? Date.now() : null;
  if (status === 'online') {
    crieur.wake();
    readMetrics();
  }
  drawTimes();
});

crieur.on('error', (error) => {
  if (crieur.status !== 'closed') return;
  $('notice').textContent =
    error.code === 'unauthorized'
      ? 'This server wants tokens of its clients, and this page has none.'
      : `${error.message}. Reload the page to try again.`;
  $('notice').hidden = false;
});

$('wake').addEventListener('click', () => crieur.wake());

function drawTimes() {
  const { retryAt, roundTrip } = crieur;
  const now = Date.now();
  $('countdown').textContent = retryAt === null ? '' : `in ${Math.max(0, Math.ceil((retryAt - now) / 1000))} s`;
  $('round-trip').textContent = roundTrip === null ? '–' : roundTrip < 1 ? '< 1 ms' : `${roundTrip} ms`;
  $('online-for').textContent = onlineSince === null ? '–' : duration((now - onlineSince) / 1000);
}

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

// Forms.

function show(id, kind, text) {
  $(id).dataset.kind = kind;
  $(id).textContent = text;
}

/** The JSON in a field; marks the field and throws where there is none. */
function readField(id) {
  try {
    const value = JSON.parse($(id).value);
    $(id).removeAttribute('aria-invalid');
    return value;
  } catch (error) {
    $(id).setAttribute('aria-invalid', 'true');
    $(id).focus();
    throw new Error(`This is not JSON: ${error.message}`);
  }
}

function addExamples(id, write) {
  for (const example of EXAMPLES) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = example.name;
    button.addEventListener('click', () => write(example));
    $(id).append(button);
  }
}

/** `value` as JSON for people: on one line, behind `name`, where that fits. */
function pretty(value, width, indent = '', name = '') {
  if (value === null || typeof value !== 'object') return name + JSON.stringify(value);
  const isList = Array.isArray(value);
  const [open, close, space] = isList ? ['[', ']', ''] : ['{', '}', ' '];
  const deeper = `${indent}  `;
  const parts = Object.entries(value).map(([key, entry]) =>
    pretty(entry, width, deeper, isList ? '' : `${JSON.stringify(key)}: `),
  );
  if (parts.length === 0) return name + open + close;
  const line = name + open + space + parts.join(', ') + space + close;
  if (indent.length + line.length <= width && !line.includes('\n')) return line;
  const lines = parts.map((part) => deeper + part).join(',\n');
  return `${name}${open}\n${lines}\n${indent}${close}`;
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

async function subscribe() {
  let list;
  try {
    list = readField('subscriptions');
    if (!Array.isArray(list)) throw new Error('A list is needed: […]');
  } catch (error) {
    show('subscribe-result', 'bad', error.message);
    return;
  }
  // What is subscribed to survives a reload, and can be sent to someone as a link.
  history.replaceState(null, '', `#${encodeURIComponent(JSON.stringify(list))}`);
  if (crieur.status !== 'online') show('subscribe-result', '', 'Will be sent when it is online.');
  try {
    const { subscriptions } = await crieur.subscribe(list);
    const count = subscriptions === 1 ? '1 subscription' : `${subscriptions} subscriptions`;
    show('subscribe-result', 'good', `${count} in force`);
  } catch (error) {
    show('subscribe-result', 'bad', error.message);
  }
}

$('subscribe').addEventListener('submit', (event) => {
  event.preventDefault();
  subscribe();
});

const FORBIDDEN = 'Not permitted: this server has no publish tokens, or this one is wrong.';

/** Sends a notification on a connection of its own; gives the server's answer. */
function publish(notification, token) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(serverUrl('publish'));
    const timer = setTimeout(() => {
      socket.close();
      reject(new Error('The server did not answer.'));
    }, PUBLISH_TIMEOUT_MS);
    const settle = (then, value) => {
      clearTimeout(timer);
      then(value);
    };
    socket.onopen = () => {
      const proof = token === '' ? '' : `"token":${JSON.stringify(token)},`;
      // As it was typed: 1.0 stays 1.0.
      socket.send(`{"sender":"server",${proof}"notification":${notification}}`);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === 'published') settle(resolve, message);
      else if (message.type === 'error') {
        const { code, detail } = message.error;
        settle(reject, new Error(code === 'forbidden' ? FORBIDDEN : `${code}: ${detail}`));
      } else return;
      socket.close();
    };
    socket.onclose = ({ code }) => {
      const refused = code === 1008 || code === 3000 || code === 3003;
      settle(reject, new Error(refused ? FORBIDDEN : 'The server can’t be reached.'));
    };
  });
}

$('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    readField('notification');
  } catch (error) {
    show('publish-result', 'bad', error.message);
    return;
  }
  const button = event.target.querySelector('[type=submit]');
  button.disabled = true;
  show('publish-result', '', 'Publishing');
  try {
    const { delivered, dropped } = await publish($('notification').value, $('token').value);
    const reached = delivered === 1 ? 'Reached 1 subscriber' : `Reached ${delivered} subscribers`;
    show('publish-result', 'good', dropped ? `${reached}, ${dropped} cut off` : reached);
  } catch (error) {
    show('publish-result', 'bad', error.message);
  } finally {
    button.disabled = false;
  }
});

// Notifications. What is kept is a list, oldest first; what is shown are the newest that pass.

let kept = [];
let keptCharacters = 0;
let received = 0;
/** The number of the next entry that has to be drawn. */
let nextToDraw = 1;
let shownMax = SHOWN_STEP;
let pausedAt = null;
let needle = '';
let isDrawn = true;
let unannounced = 0;
let inThisSecond = 0;
const rates = new Array(CHART_SECONDS).fill(0);

crieur.on('notification', (message, text) => {
  received += 1;
  inThisSecond += 1;
  unannounced += 1;
  kept.push({ number: received, time: new Date(), message, text, search: null, item: null });
  keptCharacters += text.length;
  // In one go, and not at each: shift() of a long list is slow.
  if (kept.length > KEPT_MAX * 1.2 || keptCharacters > KEPT_CHARACTERS_MAX * 1.2) forgetOldest();
  drawSoon();
});

function forgetOldest() {
  let from = 0;
  while (kept.length - from > KEPT_MAX || (keptCharacters > KEPT_CHARACTERS_MAX && from < kept.length - 1)) {
    keptCharacters -= kept[from].text.length;
    from += 1;
  }
  for (const entry of kept.splice(0, from)) entry.item?.remove();
}

const passes = (entry) => {
  if (needle === '') return true;
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
  for (let at = kept.length - 1; at >= 0 && kept[at].number >= nextToDraw && fresh.length < shownMax; at -= 1) {
    if (kept[at].number <= last && passes(kept[at])) fresh.push(kept[at]);
  }
  nextToDraw = Math.max(nextToDraw, last + 1);
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
  nextToDraw = 1;
  draw();
}

function drawSummary() {
  const shown = $('list').children.length;
  const behind = pausedAt === null ? 0 : received - pausedAt;
  const parts = [];
  if (kept.length > 0 && (shown < kept.length || needle !== '')) {
    parts.push(`${shown} shown of ${kept.length.toLocaleString('en')} kept`);
  }
  if (pausedAt !== null) parts.push(`paused, ${behind.toLocaleString('en')} more behind`);
  $('summary').textContent = parts.join(' · ');
  $('received').textContent = received.toLocaleString('en');
  $('empty').hidden = kept.length > 0;
  $('more').hidden = shown < shownMax || shown >= kept.length;
}

function itemOf(entry) {
  const item = document.createElement('li');
  item.entry = entry;
  entry.item = item;
  const { type, notification } = entry.message;
  const time = element('time', entry.time.toTimeString().slice(0, 8));
  time.dateTime = entry.time.toISOString();
  const about = element('span', '');
  about.className = 'about';
  if (type !== 'notification') {
    const mark = element('span', type);
    mark.className = 'type';
    about.append(mark);
  }
  about.append(aboutOf(notification));
  const copy = element('button', 'Copy');
  copy.type = 'button';
  copy.setAttribute('aria-label', `Copy notification ${entry.number}`);
  copy.addEventListener('click', () => copyText(entry.text, copy));
  item.append(time, about, copy, element('pre', contentOf(entry)));
  return item;
}

/** What is shown of a notification: not all of a very long one, and a long one as it came. */
function contentOf({ message, text }) {
  if (text.length <= TEXT_SHOWN_MAX) return pretty(message.notification, LINE_WIDTH);
  return `${text.slice(0, TEXT_SHOWN_MAX)}\n… ${(text.length - TEXT_SHOWN_MAX).toLocaleString('en')} characters more`;
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

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

async function copyText(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    // Only secure origins, and localhost, have a clipboard.
    button.textContent = 'Not allowed';
  }
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
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
  shownMax = SHOWN_STEP;
  if (pausedAt !== null) pausedAt = received;
  redraw();
});

$('copy-all').addEventListener('click', () => {
  const last = pausedAt ?? received;
  const lines = kept.filter((entry) => entry.number <= last && passes(entry)).map((entry) => entry.text);
  copyText(lines.join('\n'), $('copy-all'));
});

$('more').addEventListener('click', () => {
  shownMax += SHOWN_STEP;
  redraw();
});

// Figures.

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

let hasMetrics = true;

/** The server's own figures, if it has any for this page. */
async function readMetrics() {
  try {
    const response = await fetch('metrics', { cache: 'no-store' });
    hasMetrics = response.ok;
    if (hasMetrics) drawMetrics(await response.text());
  } catch {
    // The connection shows that the server is away.
  }
  $('metrics').hidden = !hasMetrics || $('metrics-list').childElementCount === 0;
}

/** Lines of `name value`, as Prometheus has them. */
function drawMetrics(text) {
  const rows = [];
  for (const line of text.split('\n')) {
    const parts = /^([A-Za-z_:][\w:]*(?:\{[^}]*\})?) (\S+)/.exec(line);
    if (parts && !parts[1].includes('_bucket{')) {
      rows.push(element('dt', parts[1]), element('dd', Number(parts[2]).toLocaleString('en')));
    }
  }
  $('metrics-list').replaceChildren(...rows);
}

// Clocks. Nothing is asked for while nobody looks.

setInterval(drawTimes, 250);
setInterval(drawChart, 1_000);
setInterval(() => {
  if (!document.hidden && crieur.status === 'online') crieur.wake();
}, PING_EVERY_MS);
setInterval(() => {
  if (!document.hidden && hasMetrics && crieur.status === 'online') readMetrics();
}, METRICS_EVERY_MS);
setInterval(() => {
  if (unannounced === 0) return;
  $('announcement').textContent = unannounced === 1 ? '1 new notification' : `${unannounced} new notifications`;
  unannounced = 0;
}, ANNOUNCE_EVERY_MS);

// The start.

$('address').textContent = location.host;
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
setSubscriptions(fromLink() ?? EXAMPLES[0].subscriptions);
subscribe();
