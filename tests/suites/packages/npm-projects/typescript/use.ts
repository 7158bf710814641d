import { Crieur, type NotificationMessage } from '@crieur/client';
import type { useCrieur } from '@crieur/client/react';
import WebSocket from 'ws';

interface Order {
  text: string;
}

export const read = ({ notification }: NotificationMessage<Order>): string => notification.text;
export const isLive = ({ subscribed }: ReturnType<typeof useCrieur>): boolean => subscribed?.isResumed !== undefined;

export function listen(crieur: Crieur<Order>): void {
  // @ts-expect-error there is no such event
  crieur.on('notifications', () => {});
  // @ts-expect-error the text is not a number
  crieur.on('notification', ({ notification }) => notification.text.toFixed());
}

const crieur = new Crieur<Order>('ws://127.0.0.1:9/', { WebSocket });
crieur.close();
console.log(crieur.status);
