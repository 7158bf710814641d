// The package as npm makes and installs it: tests/suites/web/run has done both.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import * as crieur from 'crieur';
import * as react from 'crieur/react';

const require = createRequire(import.meta.url);
const folder = path.dirname(require.resolve('crieur/package.json'));
const { version } = require('crieur/package.json');

test('it has what it should, and nothing else', () => {
  const files = ['README.md', 'crieur.d.ts', 'crieur.js', 'package.json', 'react.d.ts', 'react.js'];
  assert.deepEqual(readdirSync(folder).sort(), files.sort());
  assert.deepEqual(Object.keys(crieur).sort(), ['Crieur', 'CrieurError']);
  assert.deepEqual(Object.keys(react), ['useCrieur']);
});

test('it is of the same version as the server', () => {
  const said = execFileSync(process.env.CRIEUR, ['--version'], { encoding: 'utf8' });
  assert.equal(said, `crieur ${version}\n`);
});

test('the client imports nothing, and names nothing of Node', () => {
  const source = readFileSync(path.join(folder, 'crieur.js'), 'utf8');
  assert.doesNotMatch(source, /^import|import\(|require\(|process\.|Buffer/m);
});

test('the types are right', () => {
  const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
  execFileSync(process.execPath, [tsc, '--project', path.join(import.meta.dirname, 'tsconfig.json')], { stdio: 'inherit' });
});
