// The package in an app of React Native, as far as that goes without a phone: Metro with the
// configuration and the preset of React Native finds and bundles it, and the bundle runs.
//
// The virtual machine of Hermes that npm has is of release 0.12, which React Native 0.70 had. Of today's
// Hermes V1 it has the compiler only, so that is shown to take what Metro makes for it, and what this
// runs is the bundle for all engines.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import vm from 'node:vm';
import { temporaryFolder } from './server.js';

const require = createRequire(import.meta.url);
const program = (name, ...names) => path.join(path.dirname(require.resolve(`${name}/package.json`)), ...names);
const hermes = program('hermes-engine-cli', 'linux64-bin', 'hermes');
const hermesc = program('hermes-compiler', 'hermesc', 'linux64-bin', 'hermesc');

/** What native.app.js has to say. */
const OUTCOME = {
  said: [
    'gap: unknown',
    'subscribed, false',
    '1 in force',
    '1: e-1',
    'error: of a handler',
    'subscribed, true',
    '2: e-2',
    '3: e-3',
    'resumed, 2 missed',
    '4: e-4',
    'error: bad-message, true, CrieurError',
    'online, e-4, 10',
    'error: closed',
    '0 timers',
    'hook: 4',
    'hook: subscribed, true',
    'hook: online',
    'hook: 5',
    'hook: subscribed, true',
    'hook: e-5',
    'hook: 0 sockets',
  ],
  lists: ['x-1', 'e-1', 'e-3', 'e-4'],
};

function bundle(t, settings) {
  const file = path.join(temporaryFolder(t), 'bundle.js');
  const all = JSON.stringify({ entry: 'native.app.js', ...settings });
  execFileSync(process.execPath, ['bundle.js', file, all], { cwd: import.meta.dirname, stdio: 'inherit' });
  return file;
}

function runInNode(file) {
  let outcome;
  // It has nothing but the language, and this.
  const context = vm.createContext({ console: {}, print: (text) => (outcome = text) }, { microtaskMode: 'afterEvaluate' });
  vm.runInContext(readFileSync(file, 'utf8'), context);
  return JSON.parse(outcome);
}

const release = (binary) => /release version: (.*)/.exec(execFileSync(binary, ['--version'], { encoding: 'utf8' }))[1];

test('Metro finds it where it reads `exports` of packages; the bundle resumes under Node and under Hermes', (t) => {
  const file = bundle(t, { readsExports: true, profile: 'default' });
  assert.deepEqual(runInNode(file), OUTCOME);
  // Promises by microtasks, as in React Native's new architecture.
  const printed = execFileSync(hermes, ['-Xmicrotask-queue', '-w', file], { encoding: 'utf8' });
  assert.deepEqual(JSON.parse(printed), OUTCOME);
  console.log(`web: the bundle ran under Hermes ${release(hermes)}`);
});

test('Metro finds it where it does not, as older ones', (t) => {
  assert.deepEqual(runInNode(bundle(t, { readsExports: false, profile: 'default' })), OUTCOME);
});

test('Metro finds it for an app that requires it', (t) => {
  const app = readFileSync(path.join(import.meta.dirname, 'native.app.js'), 'utf8');
  const entry = 'native.requires.js';
  writeFileSync(path.join(import.meta.dirname, entry), app.replaceAll(/^import (.*) from (.*);$/gm, 'const $1 = require($2);'));
  assert.deepEqual(runInNode(bundle(t, { entry, readsExports: true, profile: 'default' })), OUTCOME);
});

test('Hermes V1 compiles what Metro makes for it, and the client as it is', (t) => {
  const file = bundle(t, { readsExports: true, profile: 'hermes-stable' });
  assert.match(readFileSync(file, 'utf8'), /^ *class Crieur /m, 'this is the bundle for older engines');
  assert.deepEqual(runInNode(file), OUTCOME);
  const compile = (...sources) => execFileSync(hermesc, ['-emit-binary', '-O', '-w', '-out', `${file}.hbc`, ...sources]);
  compile(file);
  const source = readFileSync(program('@crieur/client', 'crieur.js'), 'utf8').replaceAll(/^export /gm, '');
  execFileSync(hermesc, ['-emit-binary', '-O', '-w', '-out', `${file}.hbc`, '-'], { input: source });
  console.log(`web: Hermes ${release(hermesc)} compiled the bundle, and the client as it is`);
});
