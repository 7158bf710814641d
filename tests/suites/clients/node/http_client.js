// Publishes with fetch and with http on a connection that is kept.
const assert = require("node:assert");
const http = require("node:http");

const [url, ...bodies] = process.argv.slice(2);
const headers = { "Content-Type": "application/json" };

function post(agent, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: "POST", headers, agent }, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("end", () => resolve([response.statusCode, text, request.reusedSocket]));
    });
    request.on("error", reject);
    // Without a length, in two chunks.
    request.write(body.slice(0, 5));
    request.end(body.slice(5));
  });
}

/** A receipt without its id, whose form is checked. */
function withoutId(receipt) {
  assert.match(receipt, /,"id":"[0-9a-f]{16}-[1-9][0-9]*"/);
  return receipt.replace(/,"id":"[^"]*"/, "");
}

async function main() {
  for (const body of bodies.slice(0, 2)) {
    const response = await fetch(url, { method: "POST", headers, body });
    assert.strictEqual(response.status, 200);
    assert.strictEqual(withoutId(await response.text()), '{"delivered":1}');
  }
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (const [number, body] of bodies.slice(2).entries()) {
    const [status, answer, isReused] = await post(agent, body);
    assert.deepStrictEqual([status, withoutId(answer), isReused], [200, '{"delivered":1}', number > 0]);
  }
  agent.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
