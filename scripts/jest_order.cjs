// The order of specs: those that take longest first, so that no worker ends with one of them while the others have nothing to do. Jest itself
// goes by the times of its last run, which a fresh clone does not have, and else by the sizes of files.

const { default: Sequencer } = require('@jest/test-sequencer');

/** Specs of more than 20 seconds, longest first. A spec that is missing here only runs later. */
const LONG = [
  ...[
    'cli/documented_commands',
    'quantize/parts',
    'ops/cases',
    'quantize/quantize',
    'models/published',
    'evaluate/evaluate',
  ],
  ...['sparsity/methods', 'session/device', 'native/cuda_linear', 'ops/errors', 'ops/device', 'native/cuda_kernels'],
  ...['ops/splits', 'native/symbols', 'ops/composition', 'cli/ask', 'quantize/search', 'sparsity/observed'],
  ...['quantize/smooth_tower', 'jobs/queue', 'convert/convert', 'session/long'],
];

module.exports = class extends Sequencer {
  sort(tests) {
    const place = ({ path }) => {
      const found = LONG.findIndex((name) => path.endsWith(`/dist/spec/${name}.spec.js`));
      return found < 0 ? LONG.length : found;
    };
    return super.sort(tests).sort((a, b) => place(a) - place(b));
  }
};
