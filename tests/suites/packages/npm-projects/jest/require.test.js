const WebSocket = require('ws');
const { Crieur } = require('@crieur/client');
const receive = require('./receive.cjs');

test('what is published arrives', async () => {
  expect(await receive(Crieur, { WebSocket })).toBe('Order 17 is paid');
});
