// Makes what the package has beside its sources, before `npm pack` packs it: the CommonJS files, for `require` and
// Jest, and copies of the licences. A tool for this would have to be downloaded, and packing works offline.

import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

const here = new URL('./', import.meta.url);
const root = new URL('../../', here);
const cjs = new URL('cjs/', here);

/** The text of an ES module as CommonJS; throws where it imports or exports in a way that isn't known here. */
function toCommonJs(source) {
  const names = [];
  const body = source
    .replaceAll(/^import \{ (\w+(?:, \w+)*) \} from ('[\w./@-]+');$/gm, 'const { $1 } = require($2);')
    .replaceAll(/^export (class|function) (\w+)/gm, (_, kind, name) => {
      names.push(name);
      return `${kind} ${name}`;
    });
  const unknown = /^(?:import|export)\b.*/m.exec(body);
  if (unknown) throw new Error(`it is not known how to write this as CommonJS: ${unknown[0]}`);
  // Line by line: this is how Node finds the names that an ES module may import.
  const exported = names.map((name) => `exports.${name} = ${name};\n`).join('');
  return `'use strict';\n\n${body}\nObject.defineProperty(exports, '__esModule', { value: true });\n${exported}`;
}

rmSync(cjs, { recursive: true, force: true });
mkdirSync(cjs);
// Makes .js files beside it CommonJS: so modules name each other as in the sources, and the types are the same files.
writeFileSync(new URL('package.json', cjs), '{ "type": "commonjs" }\n');
for (const name of ['crieur', 'react']) {
  writeFileSync(new URL(`${name}.js`, cjs), toCommonJs(readFileSync(new URL(`${name}.js`, here), 'utf8')));
  copyFileSync(new URL(`${name}.d.ts`, here), new URL(`${name}.d.ts`, cjs));
}
for (const name of ['LICENSE-APACHE', 'LICENSE-MIT']) copyFileSync(new URL(name, root), new URL(name, here));
