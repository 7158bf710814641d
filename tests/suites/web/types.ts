// What must compile, and what must not: see tsconfig.json.

import WebSocket from 'ws';
import { Crieur, CrieurError, type Status, type Subscribed, type Subscription } from 'crieur';
import { useCrieur } from 'crieur/react';

interface Order {
  order: number;
}

const plain = new Crieur('ws://localhost:8000/');
const crieur = new Crieur<Order>('ws://localhost:8000/', { WebSocket, token: async () => 'secret' });
const browser = new Crieur('ws://localhost:8000/', { WebSocket: globalThis.WebSocket, token: () => 'secret' });

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
  crieur.on('subscribed', ({ list, isFirst }) => {
    const first: Subscription | undefined = list[0];
    if (isFirst && crieur.isSubscribed) console.log(first);
  });
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

export function Component(url: string | null): Status {
  const { status, retryAt, error, subscribed, wake } = useCrieur<Order>(url, subscriptions, {
    appState: AppState,
    onNotification: ({ notification }) => console.log(notification.order.toFixed()),
    onError: ({ code }) => console.log(code),
  });
  wake();
  console.log(retryAt, error?.message, subscribed?.list.length, subscribed?.isFirst);
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
