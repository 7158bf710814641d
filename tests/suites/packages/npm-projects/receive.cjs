/**
 * Publishes on the server of the test and resolves with what a client gets. `Crieur` is the class as the project found
 * it; `options` are those of the client.
 */
module.exports = async function receive(Crieur, options) {
  const address = process.env.ADDRESS;
  const crieur = new Crieur(`ws://${address}/`, options);
  try {
    return await new Promise((resolve, reject) => {
      crieur.on('notification', ({ notification }) => resolve(notification.text));
      crieur.on('error', reject);
      crieur.subscribe(['orders']).then(() => publish(address)).catch(reject);
    });
  } finally {
    crieur.close();
  }
};

async function publish(address) {
  const body = JSON.stringify({ notification: { channel: 'orders', text: 'Order 17 is paid' } });
  const headers = { 'Content-Type': 'application/json' };
  const response = await fetch(`http://${address}/publish`, { method: 'POST', headers, body });
  if (!response.ok) throw new Error(await response.text());
}
