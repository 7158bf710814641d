// The README's component for React, as it stands there.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { createElement } from 'react';
import { act, create } from 'react-test-renderer';
import ts from 'typescript';
import { Clock, fakeWebSocket, settle } from './fakes.js';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;

/** The only block of JSX in the README, as a module. */
async function component() {
  const readme = readFileSync(path.join(process.env.PROJECT, 'README.md'), 'utf8');
  const [[, code], ...more] = readme.matchAll(/^```jsx\n(.*?)^```$/gms);
  assert.equal(more.length, 0);
  const compilerOptions = { jsx: ts.JsxEmit.ReactJSX, module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ESNext };
  const file = path.join(import.meta.dirname, 'readme.component.js');
  writeFileSync(file, ts.transpileModule(code, { compilerOptions }).outputText);
  return (await import(file)).News;
}

test('it loads once, and shows each piece of news once', async (t) => {
  const News = await component();
  const clock = new Clock();
  t.after(() => clock.restore());
  const complaints = [];
  t.mock.method(console, 'error', (...values) => complaints.push(values.join(' ')));
  const Socket = fakeWebSocket();
  const { WebSocket } = globalThis;
  globalThis.WebSocket = Socket;
  t.after(() => (globalThis.WebSocket = WebSocket));
  let loads = 0;
  const load = async () => {
    loads += 1;
    return [{ id: 16, text: 'Order 16 is paid' }, { id: 17, text: 'Order 17 is paid' }];
  };
  let root;
  await act(async () => {
    root = create(createElement(News, { load }));
    await settle();
  });
  const shown = () => root.root.findAllByType('li').map(({ props }) => props.children);
  const receive = (id) => Socket.last.receive({ type: 'notification', id: `e-${id}`, notification: { id, text: `Order ${id} is paid` } });
  await act(async () => {
    Socket.last.accept(25, { id: 'e-15' });
    receive(17);
    await settle();
  });
  assert.equal(Socket.last.url, 'ws://127.0.0.1:8000/');
  assert.deepEqual(Socket.last.sets, [['orders']]);
  assert.deepEqual(shown(), ['Order 17 is paid', 'Order 16 is paid']);
  await act(async () => receive(18));
  assert.deepEqual(shown(), ['Order 17 is paid', 'Order 16 is paid', 'Order 18 is paid']);
  // It comes back: what was missed follows, and nothing is loaded.
  await act(async () => {
    Socket.last.end(1006);
    while (Socket.all.length === 1) await clock.pass(100);
  });
  await act(async () => {
    Socket.last.accept(25, { id: 'e-18', resumed: true });
    receive(19);
    await settle();
  });
  assert.equal(loads, 1);
  assert.deepEqual(shown().slice(2), ['Order 18 is paid', 'Order 19 is paid']);
  await act(() => root.unmount());
  assert.equal(clock.pending, 0);
  assert.deepEqual(complaints.filter((text) => !text.includes('react-test-renderer is deprecated')), []);
});
