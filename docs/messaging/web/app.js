// The page: channels, messages, a composer. The API has everything; crieur says when to look.

import { Crieur } from '/crieur.js';
import { ApiError, call, session } from './api.js';

const PACKAGE = 'amaiia_messages';
/** Behind the newest message that is known, an older one may still be missing: transactions end out of order. */
const OVERLAP = 20;
const REFRESH_DELAY_MS = 150;
/** The longest delay after the first question to the API that failed; it doubles from there. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
/** So near to its end, the list of messages stays at its end. */
const NEAR_END_PIXELS = 80;

const find = (selector) => document.querySelector(selector);
const list = find('#messages');
const composer = find('#composer');
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let me = null;
let crieur = null;
let channels = [];
/**
 * The channel that is open: its `id`, its `messages` by id, and the id up to which they are `complete`, but for
 * the overlap; `null` before the API has answered.
 */
let view = null;
/** The id of the channel whose messages are subscribed to. */
let subscribedTo = null;
/** What the API is asked for until it has answered, and the `fault` of the last try. */
let pending = null;
let refreshing = null;

// Logging in and out.

find('#login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.target;
  const fault = form.querySelector('.fault');
  fault.textContent = '';
  try {
    session.save(await call('user', 'login', { login: form.login.value.trim(), password: form.password.value }));
    form.reset();
    await enter();
  } catch (error) {
    fault.textContent = error instanceof ApiError ? error.message : 'The server cannot be reached.';
  }
});

find('#logout').addEventListener('click', async () => {
  // Even if the API can't be told: this tab forgets.
  await call('user', 'logout').catch(() => {});
  leave();
});

async function enter() {
  me = session.load().user;
  show(true);
  find('#me').textContent = me.name;
  paintAvatar(find('#me-avatar'), me);
  if (!(await persist(refresh))) return;
  connect();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = channels.find(({ name }) => name === wanted) ?? channels[0];
  if (first) openChannel(first.id);
}

function leave() {
  crieur?.close();
  crieur = null;
  pending = null;
  clearTimeout(refreshing);
  refreshing = null;
  subscribedTo = null;
  keepDraft();
  view = null;
  session.clear();
  show(false);
}

function show(isLoggedIn) {
  find('#welcome').hidden = isLoggedIn;
  find('#application').hidden = !isLoggedIn;
}

/** What goes wrong in the background: a session that has ended needs a new one, the rest comes back. */
function tolerate(error) {
  if (error.code === 'session') leave();
  else console.warn(error);
}

// Notifications.

function connect() {
  const { protocol, host } = location;
  crieur = new Crieur(`${protocol.replace('http', 'ws')}//${host}/ws`, {
    token: async () => (await call('user', 'token')).token,
  });
  crieur.on('notification', ({ type, notification }) => {
    if (type === 'refreshcontent') {
      refreshSoon();
    } else if (notification.type === 'chat' && String(notification.filters.values.channel) === view?.id) {
      const { message } = notification;
      // Nothing is missing before what comes while nothing is: a connection brings all there is, in order.
      if (isLive() && Number(message.id) > view.complete) view.complete = Number(message.id);
      add([message]);
      markRead();
    }
  });
  // The server keeps nothing: what was said while this page was away is at the API. Asked earlier, when it
  // is online, the API would not know what is said until the list is in force.
  crieur.on('subscribed', ({ list }) => {
    subscribedTo = list[0]?.filters.values.channel[0] ?? null;
    catchUp();
  });
  crieur.on('status', showStatus);
  crieur.on('error', ({ message }) => console.warn(message));
}

/** The open channel's messages, and a word when any channel has a new one. */
function subscribe() {
  const at = (page, ids) => ({ package: PACKAGE, page, filters: { values: { channel: ids } } });
  const ids = channels.map(({ id }) => id);
  crieur.subscribe([at('message_reader', [view.id]), at('channel_list', ids)]);
}

/** Whether the page shows everything, and will. */
const isLive = () => pending === null && crieur.isSubscribed && subscribedTo === (view?.id ?? null);

const LABELS = {
  connecting: 'Connecting…',
  waiting: 'Reconnecting…',
  closed: 'Offline',
  behind: 'Catching up…',
  incomplete: 'Incomplete, trying again…',
  live: 'Live',
};

function showStatus() {
  const pill = find('#status');
  const retryAt = crieur?.retryAt ?? null;
  const fault = pending?.fault ?? null;
  let status = fault === null ? 'behind' : 'incomplete';
  if (crieur !== null && crieur.status !== 'online') status = crieur.status;
  else if (crieur !== null && isLive()) status = 'live';
  pill.dataset.status = status;
  pill.textContent = LABELS[status];
  pill.title = fault ?? (retryAt === null ? '' : `next try at ${new Date(retryAt).toLocaleTimeString()}`);
  list.setAttribute('aria-busy', (view?.complete ?? null) === null);
}

/**
 * Asks the API until it has answered, with growing delays, and shows that something is missing meanwhile. A later
 * question takes the place of an earlier one, which gives `false` then.
 */
async function persist(work) {
  const run = { fault: pending?.fault ?? null };
  pending = run;
  for (let limit = RETRY_FIRST_MS; pending === run; limit = Math.min(2 * limit, RETRY_MAX_MS)) {
    showStatus();
    try {
      await work();
      if (pending !== run) break;
      pending = null;
      showStatus();
      return true;
    } catch (error) {
      tolerate(error);
      run.fault = error.message;
    }
    if (pending === run) showStatus();
    // Pages that were all told "500" don't come back in the same instant.
    await pause(Math.random() * limit);
  }
  return false;
}

const catchUp = () =>
  persist(async () => {
    if (view !== null) await fetchMessages(view);
    await refresh();
  });

// Channels.

/** Many notifications at once are one question to the API. */
function refreshSoon() {
  // Where it fails, that is asked until it is answered, unless it is already.
  refreshing ??= setTimeout(() => refresh().catch(() => pending ?? catchUp()), REFRESH_DELAY_MS);
}

async function refresh() {
  clearTimeout(refreshing);
  refreshing = null;
  const asked = me;
  const answer = await call('channel', 'list');
  // Somebody else may have logged in meanwhile.
  if (me !== asked) return;
  channels = answer.channels;
  paintChannels();
}

function openChannel(id) {
  keepDraft();
  view = { id, messages: new Map(), complete: null };
  list.replaceChildren();
  isAtEnd = true;
  const { name } = channels.find((channel) => channel.id === id);
  find('#channel-name').textContent = name;
  composer.details.placeholder = `Message to ${name}`;
  find('#application').dataset.view = 'channel';
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  paintChannels();
  takeDraft();
  subscribe();
  // At once, for there is something to show; and again when the list is in force, if it isn't yet.
  catchUp();
}

function paintChannels() {
  const items = channels.map(({ id, name, unread }) => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.channel = id;
    button.append(name);
    if (id === view?.id) button.setAttribute('aria-current', 'true');
    else if (unread > 0) button.append(badge(unread));
    button.addEventListener('click', () => openChannel(id));
    item.append(button);
    return item;
  });
  find('#channels').replaceChildren(...items);
  const sum = channels.reduce((all, { id, unread }) => all + (id === view?.id ? 0 : unread), 0);
  document.title = sum > 0 ? `(${sum}) Messages` : 'Messages';
}

function badge(unread) {
  const mark = document.createElement('span');
  mark.className = 'unread';
  mark.textContent = unread > 99 ? '99+' : unread;
  mark.setAttribute('aria-label', `${unread} unread`);
  return mark;
}

find('#back').addEventListener('click', () => {
  find('#application').dataset.view = 'channels';
});

// Messages.

/** Fetches what is missing where `complete` ends. Not behind the newest that is shown: before that, there may be a gap. */
async function fetchMessages(wanted) {
  let after = wanted.complete === null ? null : Math.max(0, wanted.complete - OVERLAP);
  for (;;) {
    const answer = await call('message', 'list', { channelid: wanted.id, ...(after !== null && { after }) });
    // Another channel may have been opened meanwhile.
    if (wanted !== view) return;
    add(answer.messages);
    const last = Number(answer.messages.at(-1)?.id ?? 0);
    wanted.complete = Math.max(wanted.complete ?? 0, last);
    if (!answer.more || after === null) break;
    after = last;
  }
  markRead();
}

/** Adds what isn't there yet, at its place: what comes while the API answers may be in its answer too. */
function add(those) {
  const { messages } = view;
  for (const message of those) {
    if (messages.has(message.id)) continue;
    const item = paintMessage(message);
    messages.set(message.id, item);
    const next = [...list.children].findLast((other) => Number(other.dataset.id) < Number(message.id));
    if (next) next.after(item);
    else list.prepend(item);
  }
  paintRuns();
  if (isAtEnd) showEnd();
}

/** Whether the newest message is in sight, and has to stay so. */
let isAtEnd = true;
function showEnd() {
  list.scrollTop = list.scrollHeight;
}
list.addEventListener('scroll', () => {
  isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PIXELS;
});
// The composer grows with what is typed, and with a fault.
new ResizeObserver(() => isAtEnd && showEnd()).observe(list);

function paintMessage({ id, login, name, title, text, sentat }) {
  const item = document.createElement('li');
  item.dataset.id = id;
  item.dataset.login = login;
  const avatar = document.createElement('span');
  avatar.className = 'avatar';
  paintAvatar(avatar, { login, name });
  const who = document.createElement('strong');
  who.textContent = name;
  const when = document.createElement('time');
  when.dateTime = sentat;
  when.textContent = new Date(sentat).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  const head = document.createElement('header');
  head.append(who, when);
  const body = document.createElement('p');
  body.textContent = text;
  item.append(avatar, head);
  if (title) {
    const heading = document.createElement('h2');
    heading.textContent = title;
    item.append(heading);
  }
  item.append(body);
  return item;
}

/** An author of several messages in a row is named once. */
function paintRuns() {
  let before = null;
  for (const item of list.children) {
    item.classList.toggle('same', before?.dataset.login === item.dataset.login);
    before = item;
  }
}

function paintAvatar(element, { login, name }) {
  element.textContent = name.slice(0, 1).toUpperCase();
  element.dataset.hue = [...login].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
}

/** Tells the API once for many messages. */
let marking = null;
function markRead() {
  marking ??= setTimeout(() => {
    marking = null;
    if (view === null || view.messages.size === 0) return;
    const messageid = Math.max(...[...view.messages.keys()].map(Number));
    call('channel', 'read', { channelid: view.id, messageid }).catch(tolerate);
  }, REFRESH_DELAY_MS);
}

// The composer. What was typed and not sent stays with its channel, and with whose it is.

const drafts = new Map();
const draftOf = (channel, login) => JSON.stringify([channel, login]);

function keepDraft() {
  if (view === null) return;
  drafts.set(draftOf(view.id, me.login), { title: composer.title.value, details: composer.details.value });
  composer.reset();
}

function takeDraft() {
  const { title, details } = drafts.get(draftOf(view.id, me.login)) ?? { title: '', details: '' };
  composer.title.value = title;
  composer.details.value = details;
  composer.querySelector('.fault').textContent = '';
}

/** Puts what could not be sent in front of what was typed since. */
function giveBack(channel, { title, details, sentby }) {
  const isOpen = view?.id === channel && me.login === sentby;
  const key = draftOf(channel, sentby);
  const field = composer.details;
  const fromEnd = field.value.length - field.selectionEnd;
  if (isOpen) keepDraft();
  const since = drafts.get(key) ?? { title: '', details: '' };
  drafts.set(key, {
    title: since.title || title,
    // There is room for one title.
    details: [since.title && title, details, since.details].filter((text) => text !== '').join('\n'),
  });
  if (!isOpen) return;
  takeDraft();
  field.setSelectionRange(field.value.length - fromEnd, field.value.length - fromEnd);
}

composer.addEventListener('submit', async (event) => {
  event.preventDefault();
  const fault = composer.querySelector('.fault');
  const { title, details } = composer;
  if (view === null || details.value.trim() === '') return;
  const channel = view.id;
  const name = find('#channel-name').textContent;
  const values = { channelid: Number(channel), title: title.value, details: details.value, sentby: me.login };
  fault.textContent = '';
  composer.reset();
  details.focus();
  try {
    const { message } = await call('message', 'add', values);
    // Its notification comes too, and may be first. Both have the same id.
    if (view?.id === channel) add([message]);
  } catch (error) {
    giveBack(channel, values);
    const why = error instanceof ApiError ? error.message : 'the server cannot be reached.';
    fault.textContent = view?.id === channel ? `It was not sent: ${why}` : `Not sent to ${name}: ${why}`;
    if (error.code === 'session') leave();
  }
});

composer.details.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});

if (session.load() === null) show(false);
else enter().catch(tolerate);
