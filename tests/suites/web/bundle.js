// Bundles a module beside this file as an app of React Native is bundled, into a file of the given name. A process
// makes one bundle: Babel remembers the profile of the first.

import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// None of these is an ES module.
const require = createRequire(import.meta.url);
const Metro = require('metro');
const { getDefaultConfig, mergeConfig } = require('@react-native/metro-config');

const [out, settings] = process.argv.slice(2);
const { entry, readsExports, profile } = JSON.parse(settings);

const config = mergeConfig(getDefaultConfig(import.meta.dirname), {
  resolver: { unstable_enablePackageExports: readsExports },
  // What runs first is React Native itself, which is not there.
  serializer: { getModulesRunBeforeMainModule: () => [] },
  cacheStores: [],
  maxWorkers: 1,
  reporter: {
    update({ type, message }) {
      if (type === 'resolver_warning') throw new Error(message);
    },
  },
});
const { code } = await Metro.runBuild(config, {
  entry,
  platform: 'android',
  dev: false,
  minify: false,
  unstable_transformProfile: profile,
});
writeFileSync(out, code);
