import WebSocket from 'ws';
import { Crieur } from '@crieur/client';
import receive from './receive.cjs';

test('what is published arrives', async () => {
  expect(await receive(Crieur, { WebSocket })).toBe('Order 17 is paid');
});
