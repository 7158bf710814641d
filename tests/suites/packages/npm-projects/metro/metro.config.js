const { getDefaultConfig, mergeConfig } = require('@react-native/metro-config');

// What runs first is React Native itself, which is not there.
module.exports = mergeConfig(getDefaultConfig(__dirname), { serializer: { getModulesRunBeforeMainModule: () => [] } });
