/**
 * The console: shows the connection of a client, lets it subscribe, and shows what arrives.
 *
 * Owns the page; everything about the connection is the client's. Invariants: what comes from the
 * server becomes text, never markup; the page is drawn at most once a frame, and keeps and shows so
 * much and no more, however many notifications come; tokens are in their fields, and in the messages.
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

// The connection.

const STATUSES = { connecting: 'Connecting', online: 'Online', waiting: 'Reconnecting', closed: 'Closed' };
const REASONS = {
  shutdown: 'the server is stopping',
  silent: 'the link went silent',
  timeout: 'no answer',
  'slow-consumer': 'this page was too slow',
  overload: 'the server is overloaded',
  'token-missing': 'it wants tokens of its clients',
  'token-expired': 'the token has expired',
  'token-invalid': 'the token is damaged, or of another server',
};
const GAPS = {
  expired: 'the history doesn’t reach back so far',
  unknown: 'the server has lost its history, or is another one',
  forbidden: 'the token withholds the history',
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
  crieur = new Crieur(serverUrl(''), { since, token: token === '' ? null : () => token });
  crieur.on('status', statusChanged);
  crieur.on('gap', gap);
  crieur.on('subscribed', subscribed);
  crieur.on('resumed', resumed);
  crieur.on('notification', notified);
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
    readMetrics();
    if ($('publish-result').dataset.kind === 'bad') show('publish-result', '', '');
  } else {
    // The next server may be another one.
    lack = '';
    reading.samples.clear();
    $('history').textContent = '';
    if (crieur.position !== null) lostAt ??= Date.now();
    if (wasOnline || status === 'closed') show('subscribe-result', '', 'Nothing is in force while it is not online.');
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

const clock = (time) => time.toTimeString().slice(0, 8);
const durationSince = (time) => duration((Date.now() - time) / 1000);

function duration(seconds) {
  if (seconds > 0 && seconds < 1) {
    return seconds < 0.001 ? `${Math.round(seconds * 1e6)} µs` : `${Math.round(seconds * 1000)} ms`;
  }
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

// Forms.

function show(id, kind, text) {
  $(id).dataset.kind = kind;
  $(id).textContent = text;
  if (kind === 'bad') $(id).closest('details')?.setAttribute('open', '');
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

/** The list that was asked for last, as text. */
let asked = '';

function showInForce(list) {
  const count = list.length === 1 ? '1 subscription' : `${list.length} subscriptions`;
  show('subscribe-result', 'good', `${count} in force${JSON.stringify(list) === asked ? '' : ': the list before'}`);
}

async function subscribe() {
  let list;
  try {
    list = readField('subscriptions');
    if (!Array.isArray(list)) throw new Error('A list is needed: […]');
  } catch (error) {
    show('subscribe-result', 'bad', error.message);
    return;
  }
  asked = JSON.stringify(list);
  // What is subscribed to survives a reload, and can be sent to someone as a link.
  history.replaceState(null, '', `#${encodeURIComponent(asked)}`);
  const token = $('client-token').value.trim();
  if (crieur === null || crieur.status === 'closed' || token !== clientToken) connect(token);
  show('subscribe-result', '', crieur.status === 'online' ? '' : 'Will be sent when it is online.');
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

function notified(message, text) {
  received += 1;
  inThisSecond += 1;
  unannounced += 1;
  add({ message, text });
  if (message.id !== undefined && lack === 'empty') {
    lack = '';
    readMetrics(true);
  }
}

/** Says between two notifications what happened there. */
function addMark(kind, mark) {
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
  if (pausedAt !== null) parts.push(`paused, ${behind.toLocaleString('en')} more behind`);
  $('summary').textContent = parts.join(' · ');
  $('received').textContent = received.toLocaleString('en');
  $('empty').hidden = notifications > 0;
  $('more').hidden = shown < shownMax || shown >= kept.length;
}

function itemOf(entry) {
  const item = document.createElement('li');
  item.entry = entry;
  entry.item = item;
  const time = element('time', clock(entry.time));
  time.dateTime = entry.time.toISOString();
  if (entry.mark) {
    item.className = 'divider';
    item.dataset.kind = entry.kind;
    item.append(time, element('span', entry.mark));
    return item;
  }
  const { type, id, notification } = entry.message;
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
  if (id !== undefined) copy.before(element('code', id));
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

// The server's own figures, if it has any for this page.

const GROUPS = {
  Connections: /^(connections|accept|upgrades|requests|tokens|sessions|protocol|slow|peers|ping|messages|received|reads)/,
  Notifications: /^(notification|deliver|subscription|match|fan_out)/,
  History: /^(history|resumes|replay|catching|gaps)/,
  Redis: /^redis/,
  'Memory and system': /^(process|loop|send_queue|buffer|log|build|handover)/,
  Others: /^/,
};
/** The names of those that the server's own words don't name well. */
const NAMES = {
  'connections client': 'Clients connected',
  'connections publisher': 'Publishers connected',
  connections: 'Connections',
  deliveries_total: 'Notifications delivered',
  resumes_total: 'Clients that came back',
  build_info: 'Version',
  process_start_time_seconds: 'Running since',
};

let hasMetrics = true;
let reading = { samples: new Map(), at: 0 };
/** `empty` or `off`, where the history had nothing in it. */
let lack = '';

async function readMetrics(isAfterNotification = false) {
  try {
    const response = await fetch('metrics', { cache: 'no-store' });
    hasMetrics = response.ok;
    if (hasMetrics) {
      const text = await response.text();
      const read = (pattern) => new Map([...text.matchAll(pattern)].map(([, name, value]) => [name, value]));
      const samples = read(/^(\w+(?:\{.*\})?) (\S+)/gm);
      drawHistory(samples, isAfterNotification);
      if (!isAfterNotification) drawMetrics(samples, read(/^# HELP (\S+) (.*?)\.?$/gm));
    }
  } catch {
    // The connection shows that the server is away.
  }
  $('metrics').hidden = !hasMetrics || reading.at === 0;
}

/** A server doesn't say that it keeps nothing: a notification that has an id and isn't kept does. */
function drawHistory(samples, isAfterNotification) {
  if (!samples.has('crieur_history_entries') || crieur.status !== 'online') return;
  const [entries, size, age] = ['entries', 'bytes', 'oldest_seconds'].map((name) =>
    readable(samples.get(`crieur_history_${name}`), name),
  );
  if (entries !== '0') lack = '';
  else if (isAfterNotification) lack = 'off';
  else lack ||= 'empty';
  $('history').textContent = `History: ${lack || `${entries} kept, ${size}, the oldest ${age} old`}`;
}

/** In groups, each counter with its change a second since the reading before. */
function drawMetrics(samples, help) {
  const at = Date.now();
  const elapsed = (at - reading.at) / 1000;
  const lists = {};
  for (const title of Object.keys(GROUPS)) lists[title] = element('dl', '');
  for (const [key, value] of samples) {
    const [, family, part, labels = ''] = /^(\w+?)(_bucket|_sum|_count)?(\{.*)?$/.exec(key);
    // A histogram is its count and its mean.
    if (part !== '_count' && samples.has(`${family}_count`)) continue;
    const short = family.replace('crieur_', '');
    const label = labels.replace(/[{,]\w+="(.*?)"}?/g, ' $1').replaceAll('_', ' ');
    const words = NAMES[short] ?? help.get(family);
    const title = Object.keys(GROUPS).find((each) => GROUPS[each].test(words ? short : ''));
    const name = NAMES[short + label] ?? words + (label && `:${label}`);
    const term = element('dt', title === 'Others' ? key : name);
    term.title = key;
    const unit = part ? '' : short;
    let shown = short.endsWith('_info') ? '' : readable(value, unit);
    if (part && value > 0) shown = `mean ${readable(samples.get(`${family}_sum`) / value, short)} of ${shown}`;
    const was = part || short.endsWith('_total') ? reading.samples.get(key) : undefined;
    const change = was === undefined ? '' : `${readable((value - was) / elapsed, unit)}/s`;
    lists[title].append(term, element('dd', shown), element('dd', change));
  }
  const used = Object.entries(lists).filter(([, list]) => list.firstChild);
  $('metrics-list').replaceChildren(...used.flatMap(([title, list]) => [element('h3', title), list]));
  $('metrics-time').textContent = clock(new Date(at));
  reading = { samples, at };
}

/** A value in the unit that its name ends with. */
function readable(value, name) {
  if (name === 'process_start_time_seconds') return new Date(value * 1000).toLocaleString('sv');
  if (name.endsWith('seconds')) return duration(value);
  if (!/bytes(_total)?$/.test(name)) return figure(value);
  const step = value < 1024 ? 0 : value < 1024 ** 2 ? 1 : 2;
  return `${figure(value / 1024 ** step)} ${['B', 'KiB', 'MiB'][step]}`;
}

const figure = (value) => Number(value).toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : 0 });

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

// The layout: what comes first on the page does for the keyboard, too.

const wide = matchMedia('(min-width: 56rem)');

function arrange() {
  document.querySelector('main')[wide.matches ? 'append' : 'prepend']($('notifications'));
  for (const card of document.querySelectorAll('#forms > details')) card.open = wide.matches;
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

// The start.

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
setSubscriptions(fromLink() ?? EXAMPLES[0].subscriptions);
subscribe();
