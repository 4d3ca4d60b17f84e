// Jest runs each spec in a realm of its own, whose Float32Array is not the one native code returns, so
// `instanceof` in tfjs fails. This environment hands the outer realm's array classes in.
const { TestEnvironment } = require('jest-environment-node');

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
