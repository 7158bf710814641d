// What must compile, and what must not: see tsconfig.json.

import WebSocket from 'ws';
import {
  Crieur,
  CrieurError,
  type GapEvent,
  type NotificationMessage,
  type ResumedEvent,
  type Status,
  type Subscribed,
  type SubscribedEvent,
  type Subscription,
} from '@crieur/client';
import { useCrieur } from '@crieur/client/react';

interface Order {
  order: number;
}

const plain = new Crieur('ws://localhost:8000/');
const crieur = new Crieur<Order>('ws://localhost:8000/', { WebSocket, token: async () => 'secret' });
const browser = new Crieur('ws://localhost:8000/', { WebSocket: globalThis.WebSocket, token: () => 'secret' });

const resuming = new Crieur<Order>('ws://localhost:8000/', { WebSocket, since: plain.position, resume: true });
new Crieur('ws://localhost:8000/', { WebSocket, since: '', resume: false });
new Crieur('ws://localhost:8000/', { since: globalThis.localStorage.getItem('position') });

const subscriptions: Subscription[] = [
  'Production',
  { package: 'shop', page: 'orders' },
  { package: 'shop', page: 'orders', filters: { values: { state: ['new', 2], paid: true, at: 1 } } },
  { package: 'shop', page: 'orders', filters: { values: ['2', 5] } },
  { package: 'shop', page: 'orders', filters: { values: true } },
  { package: 'shop', page: 'orders', filters: null },
];

export async function use(): Promise<Subscribed> {
  const remove: () => void = crieur.on('notification', ({ type, notification }, text) => {
    const order: number = notification.order;
    console.log(type.length + order, text.length);
  });
  crieur.on('status', ({ status, retryAt, code, reason }) => {
    if (status === 'waiting' && retryAt !== null) console.log(new Date(retryAt), code?.toFixed(), reason?.length);
  });
  crieur.on('notification', (message: NotificationMessage<Order>) => {
    const id: string | undefined = message.id;
    console.log(id, message.notification.order);
  });
  crieur.on('subscribed', ({ list, isFirst, isResumed }) => {
    const first: Subscription | undefined = list[0];
    const hasToLoad: boolean = !isResumed;
    if (isFirst && hasToLoad && crieur.isSubscribed) console.log(first);
  });
  crieur.on('resumed', ({ missed }: ResumedEvent) => console.log(missed.toFixed()));
  crieur.on('gap', ({ reason }: GapEvent) => console.log(reason.length));
  const position: string | null = resuming.position;
  console.log(position?.length);
  crieur.on('error', (error: CrieurError) => console.error(error.code));
  const status: Status = plain.status;
  console.log(status, crieur.roundTrip?.toFixed(), browser.retryAt);
  remove();
  crieur.wake();
  crieur.close();
  return crieur.subscribe(subscriptions);
}

// React Native's, as far as it matters.
declare const AppState: {
  currentState: 'active' | 'background' | 'inactive' | 'unknown' | 'extension';
  addEventListener(type: 'change' | 'memoryWarning', listener: (state: 'active' | 'background') => void): { remove(): void };
};

export function Component(url: string | null, since: string | null): Status {
  const { status, retryAt, error, subscribed, wake, getPosition } = useCrieur<Order>(url, subscriptions, {
    appState: AppState,
    since,
    resume: since !== null,
    onNotification: ({ id, notification }) => console.log(id?.length, notification.order.toFixed()),
    onGap: ({ reason }) => console.log(reason.length),
    onError: ({ code }) => console.log(code),
  });
  wake();
  const event: SubscribedEvent | null = subscribed;
  const keep: () => string | null = getPosition;
  console.log(retryAt, error?.message, event?.list.length, event?.isFirst, event?.isResumed, keep());
  return status;
}

// @ts-expect-error there is no such event
crieur.on('notifications', () => {});
// @ts-expect-error a subscription has a page
void crieur.subscribe([{ package: 'shop' }]);
// @ts-expect-error a list is needed
void crieur.subscribe('Production');
// @ts-expect-error it is read only
crieur.status = 'online';
// @ts-expect-error there is no such option
new Crieur('ws://localhost/', { retries: 3 });
// @ts-expect-error a position is a text
new Crieur('ws://localhost/', { since: 42 });
// @ts-expect-error it is on or off
new Crieur('ws://localhost/', { resume: 'no' });
// @ts-expect-error the server moves it
crieur.position = 'x-1';
// @ts-expect-error it may be unknown
plain.position.length;
crieur.on('notification', (message) => {
  // @ts-expect-error not each notification has one
  message.id.length;
});
crieur.on('subscribed', (event) => {
  // @ts-expect-error it is read only
  event.isResumed = true;
});
// @ts-expect-error what was missed is a number
crieur.on('resumed', ({ missed }: { missed: string }) => console.log(missed));
// @ts-expect-error a gap has no number
crieur.on('gap', ({ missed }) => console.log(missed));
// @ts-expect-error the hook calls it getPosition()
console.log(useCrieur('ws://localhost/', []).position);
// @ts-expect-error the hook tells this by `subscribed.isResumed`
useCrieur('ws://localhost/', [], { onResumed: () => {} });
