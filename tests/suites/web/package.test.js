// The package as npm makes and installs it: tests/suites/web/run has done both.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import * as crieur from '@crieur/client';
import * as react from '@crieur/client/react';

const require = createRequire(import.meta.url);
const folder = path.dirname(require.resolve('@crieur/client/package.json'));
const { version } = require('@crieur/client/package.json');

test('it has what it should, and nothing else', () => {
  const modules = ['crieur.d.ts', 'crieur.js', 'package.json', 'react.d.ts', 'react.js'];
  const others = ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'cjs'];
  assert.deepEqual(readdirSync(folder).sort(), [...modules, ...others].sort());
  assert.deepEqual(readdirSync(path.join(folder, 'cjs')).sort(), modules);
  for (const its of [crieur, require('@crieur/client')]) assert.deepEqual(Object.keys(its).sort(), ['Crieur', 'CrieurError']);
  for (const its of [react, require('@crieur/client/react')]) assert.deepEqual(Object.keys(its), ['useCrieur']);
});

test('it is of the same version as the server', () => {
  const said = execFileSync(process.env.CRIEUR, ['--version'], { encoding: 'utf8' });
  assert.equal(said, `crieur ${version}\n`);
});

test('the client imports nothing, and names nothing of Node', () => {
  for (const file of ['crieur.js', 'cjs/crieur.js']) {
    const source = readFileSync(path.join(folder, file), 'utf8');
    assert.doesNotMatch(source, /^import|import\(|require\(|process\.|Buffer/m);
  }
});

for (const [resolution, options] of Object.entries({
  'of Node': [],
  'of bundlers': ['--module', 'ESNext', '--moduleResolution', 'Bundler'],
})) {
  test(`the types are right, for \`import\` and \`require\`, with the resolution ${resolution}`, () => {
    const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
    const project = path.join(import.meta.dirname, 'tsconfig.json');
    // As a CommonJS module, it finds the types of the CommonJS files.
    copyFileSync(path.join(import.meta.dirname, 'types.ts'), path.join(import.meta.dirname, 'types.cts'));
    execFileSync(process.execPath, [tsc, '--project', project, ...options], { stdio: 'inherit' });
  });
}
