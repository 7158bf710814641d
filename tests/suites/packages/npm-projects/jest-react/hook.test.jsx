/** @jest-environment jsdom */
// The hook itself, with the WebSocket of jsdom and the server of the test.

import { request } from 'node:http';
import { act, render, screen } from '@testing-library/react';
import { useCrieur } from '@crieur/client/react';
import { useState } from 'react';

function Orders() {
  const [texts, setTexts] = useState([]);
  const { subscribed } = useCrieur(`ws://${process.env.ADDRESS}/`, ['orders'], {
    onNotification: ({ notification }) => setTexts((before) => [...before, notification.text]),
  });
  return <ul data-testid={subscribed ? 'live' : 'not yet'}>{texts.map((text) => <li key={text}>{text}</li>)}</ul>;
}

test('what is published is shown', async () => {
  render(<Orders />);
  await screen.findByTestId('live');
  const headers = { 'Content-Type': 'application/json' };
  request(`http://${process.env.ADDRESS}/publish`, { method: 'POST', headers })
    .end(JSON.stringify({ notification: { channel: 'orders', text: 'Order 17 is paid' } }));
  expect(await screen.findByText('Order 17 is paid')).toBeTruthy();
});
