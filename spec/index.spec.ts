// The public API: its exports, and the example in its documentation.

import * as sparsevila from '../src';
import { errorOf } from './image/fixtures';
import { scene, TINY } from './support/assets';
import { withoutLeak } from './support/leaks';

const { load, sparseVila, SparseVilaError } = sparsevila;

it('exports what the documentation names, and nothing else', () => {
  const names = [
    ...[
      'METHODS',
      'PACKAGED_FILM',
      'PACKAGED_FILM_MODEL',
      'PACKAGED_MODEL',
      'PACKAGED_PICTURE',
      'SCORES',
      'SPARSE_VILA_PRESETS',
      'SparseVilaError',
    ],
    ...[
      'budget',
      'cdPruner',
      'clearWeightCache',
      'compose',
      'convert',
      'dart',
      'dense',
      'diagnose',
      'divPrune',
      'download',
      'downsample',
      'engineRunner',
    ],
    ...[
      'evaluate',
      'evs',
      'explain',
      'fastV',
      'hiPrune',
      'holoV',
      'infiniPotV',
      'inspect',
      'list',
      'load',
      'mmTok',
      'observed',
      'openEngine',
    ],
    ...['openQueue', 'openWorker'],
    ...[
      'perPlane',
      'pixelPrune',
      'pruMerge',
      'pruMergePlus',
      'pyramidDrop',
      'quantize',
      'quest',
      'quota',
      'quotaFor',
      'random',
      'randomDeep',
      'reKv',
      'readDataSet',
      'readJobs',
    ],
    ...['refreshed', 'remove', 'runBatch', 'scenesSet', 'scheduled'],
    ...['serve', 'setup', 'snapKv', 'sparseVila', 'sparseVlm', 'sparseVlmPlus'],
    ...[
      'stcCacher',
      'storm',
      'topK',
      'tune',
      'uniform',
      'vCast',
      'vScan',
      'vidCom2',
      'videoScan',
      'visionZip',
      'weightCache',
    ],
  ];
  expect(Object.keys(sparsevila).sort()).toEqual(names);
});

it('setup needs no options, as README calls it', () => {
  // The compiler checks it: a function with a required parameter cannot be assigned to this type.
  const bare: () => Promise<sparsevila.SetupResult> = sparsevila.setup;
  expect(bare).toBe(sparsevila.setup);
});

it('answers as in the example: load, open a session, ask, stream, dispose', async () => {
  // The first turn makes two constants that are kept for the process.
  using first = await load(TINY);
  using warm = first.session();
  await warm.ask('What is at b4?', { images: [scene(0)] }).text();
  await withoutLeak(async () => {
    using vlm = await load(TINY);
    using chat = vlm.session({ method: sparseVila() });
    let said = '';
    for await (const text of chat.ask('What is at b4?', { images: [scene(0)] })) said += text;
    expect(said).toBe('red F');
    const answer = chat.ask('How many cyan objects are there?');
    expect(await answer.text()).toBe('2');
    expect(answer.stats).toMatchObject({
      tokens: { visualSeen: 0, visualKept: 40, visualRetrieved: 10, generated: 1 },
      finish: 'stop',
    });
    expect([chat.model.family, chat.method.name]).toEqual(['llava_llama', 'sparsevila']);
  });
});

it('two models can be loaded at once and share nothing', async () => {
  using one = await load(TINY);
  const two = await load(TINY);
  using chat = one.session();
  const other = two.session();
  const texts = [];
  for (const session of [chat, other]) texts.push(await session.ask('What is at b4?', { images: [scene(0)] }).text());
  other.dispose();
  two.dispose();
  texts.push(await chat.ask('What is at i7?').text());
  expect(texts).toEqual(['red F', 'red F', 'red B']);
});

it('throws errors with codes', async () => {
  const error = await errorOf(() => load('no/such/model'));
  expect(error).toBeInstanceOf(SparseVilaError);
  expect([error.name, error.code, error.message]).toEqual([
    'SparseVilaError',
    'ERR_MODEL_MISSING',
    expect.stringContaining('no/such/model'),
  ]);
});
