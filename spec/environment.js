// Jest runs each spec in a realm of its own, whose Float32Array is not the one native code returns, so
// `instanceof` in tfjs fails. This environment hands the outer realm's array classes in.
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { TestEnvironment } = require('jest-environment-node');

// No spec, and no process that one starts, asks the Hub or looks into the cache of whoever runs it.
process.env.HF_HUB_OFFLINE = '1';
process.env.HF_HOME = join(tmpdir(), 'sparsevila-no-hub');
for (const name of ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_TOKEN', 'HF_TOKEN_PATH'])
  delete process.env[name];

module.exports = class extends TestEnvironment {
  constructor(config, context) {
    super(config, context);
    Object.assign(this.global, {
      Float32Array,
      Float64Array,
      Int8Array,
      Int16Array,
      Int32Array,
      Uint16Array,
      Uint32Array,
      Uint8ClampedArray,
      BigInt64Array,
      BigUint64Array,
    });
  }
};
