// The page: channels, messages, a composer. The API has everything; crieur says when to look.

import { Crieur } from '/crieur.js';
import { ApiError, call, session } from './api.js';

const PACKAGE = 'amaiia_messages';
/** Behind the newest message that is known, an older one may still be missing: transactions end out of order. */
const OVERLAP = 20;
const REFRESH_DELAY_MS = 150;

const find = (selector) => document.querySelector(selector);
const list = find('#messages');
const composer = find('#composer');

let me = null;
let crieur = null;
let channels = [];
/** The channel that is open, and its messages by id. */
let open = null;
let messages = new Map();
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
  channels = (await call('channel', 'list')).channels;
  connect();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = channels.find(({ name }) => name === wanted) ?? channels[0];
  if (first) openChannel(first.id);
}

function leave() {
  crieur?.close();
  crieur = null;
  open = null;
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
    } else if (notification.type === 'chat' && String(notification.filters.values.channel) === open) {
      add([notification.message]);
      markRead();
    }
  });
  crieur.on('status', ({ status, retryAt }) => showStatus(status, retryAt));
  crieur.on('error', ({ message }) => console.warn(message));
}

/** The open channel's messages, and a word when any channel has a new one. */
function subscribe() {
  const at = (page, ids) => ({ package: PACKAGE, page, filters: { values: { channel: ids } } });
  const ids = channels.map(({ id }) => id);
  return crieur.subscribe([at('message_reader', [open]), at('channel_list', ids)]);
}

function showStatus(status, retryAt) {
  const pill = find('#status');
  pill.dataset.status = status;
  pill.textContent = { connecting: 'Connecting…', online: 'Live', waiting: 'Reconnecting…', closed: 'Offline' }[status];
  pill.title = retryAt === null ? '' : `next try at ${new Date(retryAt).toLocaleTimeString()}`;
  // The server keeps nothing: what was said while this page was away is at the API. First the
  // subscription, then the question: what is said in between comes twice rather than never.
  if (status === 'online' && open !== null) catchUp();
}

async function catchUp() {
  const channel = open;
  try {
    await subscribe();
    await fetchMessages(channel);
    await refresh();
  } catch (error) {
    tolerate(error);
  }
}

// Channels.

/** Many notifications at once are one question to the API. */
function refreshSoon() {
  refreshing ??= setTimeout(() => refresh().catch(tolerate), REFRESH_DELAY_MS);
}

async function refresh() {
  clearTimeout(refreshing);
  refreshing = null;
  channels = (await call('channel', 'list')).channels;
  paintChannels();
}

function openChannel(id) {
  open = id;
  messages = new Map();
  list.replaceChildren();
  const { name } = channels.find((channel) => channel.id === id);
  find('#channel-name').textContent = name;
  composer.details.placeholder = `Message to ${name}`;
  find('#application').dataset.view = 'channel';
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  paintChannels();
  catchUp();
}

function paintChannels() {
  const items = channels.map(({ id, name, unread }) => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.channel = id;
    button.append(name);
    if (id === open) button.setAttribute('aria-current', 'true');
    else if (unread > 0) button.append(badge(unread));
    button.addEventListener('click', () => openChannel(id));
    item.append(button);
    return item;
  });
  find('#channels').replaceChildren(...items);
  const sum = channels.reduce((all, { id, unread }) => all + (id === open ? 0 : unread), 0);
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

async function fetchMessages(channel) {
  let after = messages.size === 0 ? null : Math.max(0, newest() - OVERLAP);
  for (;;) {
    const answer = await call('message', 'list', { channelid: channel, ...(after !== null && { after }) });
    // Another channel may have been opened meanwhile.
    if (channel !== open) return;
    add(answer.messages);
    if (!answer.more || after === null) break;
    after = Number(answer.messages[answer.messages.length - 1].id);
  }
  markRead();
}

const newest = () => Math.max(0, ...[...messages.keys()].map(Number));

/** Adds what isn't there yet, at its place. */
function add(those) {
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  for (const message of those) {
    if (messages.has(message.id)) continue;
    const item = paintMessage(message);
    messages.set(message.id, item);
    const next = [...list.children].findLast((other) => Number(other.dataset.id) < Number(message.id));
    if (next) next.after(item);
    else list.prepend(item);
  }
  paintRuns();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

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

/** Who says several things in a row is named once. */
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
    if (open !== null && messages.size > 0) {
      call('channel', 'read', { channelid: open, messageid: newest() }).catch(tolerate);
    }
  }, REFRESH_DELAY_MS);
}

// The composer.

composer.addEventListener('submit', async (event) => {
  event.preventDefault();
  const fault = composer.querySelector('.fault');
  const { title, details } = composer;
  const values = { channelid: Number(open), title: title.value, details: details.value, sentby: me.login };
  if (values.details.trim() === '') return;
  fault.textContent = '';
  composer.reset();
  details.focus();
  try {
    const { message } = await call('message', 'add', values);
    // Its notification comes too, and may be first. Both have the same id.
    if (open === String(values.channelid)) add([message]);
  } catch (error) {
    // Nothing that was typed is lost.
    title.value = values.title;
    details.value = values.details;
    fault.textContent = error instanceof ApiError ? error.message : 'It was not sent: the server cannot be reached.';
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
