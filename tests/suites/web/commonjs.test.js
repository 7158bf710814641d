// The tests of the client and of the hook once more, with the CommonJS files of the package.

import assert from 'node:assert/strict';
import { createRequire, register } from 'node:module';
import { test } from 'node:test';

/** Has `import` find what `require` finds. */
const hooks = `export const resolve = (name, context, next) => next(name, { ...context, conditions: ['node', 'require'] });`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const require = createRequire(import.meta.url);

test('these tests use what `require` finds', async () => {
  for (const name of ['@crieur/client', '@crieur/client/react']) {
    const { default: imported } = await import(name);
    assert.equal(imported, require(name));
  }
});

for (const name of ['client', 'resume', 'model', 'react']) await import(`./${name}.test.js`);
