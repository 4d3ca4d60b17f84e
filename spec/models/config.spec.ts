// Config files: the packaged model's, the class defaults of each decoder, both forms of rope, and what is refused.
import { join } from 'node:path';
import { configReader, type Json, readJson } from '../../src/json';
import { parseDecoderConfig, ropeInverseFrequencies } from '../../src/models/config';
import { clipTower, hiddenStateDepth, PLAIN_VIT, siglipTower } from '../../src/models/tower_config';
import { withFolder } from '../text/vocabularies';

const TINY = join(__dirname, '../../../assets/tiny-nvila');
const decoder = (json: Json) => parseDecoderConfig(json, 'config.json');
const siglip = (json: Json) => siglipTower(configReader(json, 'config.json'));
const SIGLIP = { ...PLAIN_VIT, patchBias: true, classToken: false, preNorm: false };
const error = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe('parseDecoderConfig', () => {
  it('reads the packaged model', () => {
    const file = join(TINY, 'llm/config.json');
    expect(parseDecoderConfig(readJson(file), file)).toEqual({
      hiddenSize: 256,
      intermediateSize: 640,
      layers: 4,
      heads: 4,
      kvHeads: 2,
      headDim: 64,
      vocabSize: 448,
      ropeTheta: 100000,
      ropeScaling: { type: 'default' },
      rmsNormEps: 1e-6,
      maxPositions: 32768,
      attentionBias: { qkv: true, o: false },
      tieWordEmbeddings: true,
      hiddenAct: 'silu',
    });
  });

  it('uses the class defaults for absent keys', () => {
    const common = {
      hiddenSize: 4096,
      layers: 32,
      heads: 32,
      headDim: 128,
      ropeTheta: 10000,
      rmsNormEps: 1e-6,
      tieWordEmbeddings: false,
    };
    const none = { qkv: false, o: false };
    expect(decoder({ model_type: 'llama' })).toMatchObject({
      ...common,
      intermediateSize: 11008,
      kvHeads: 32,
      vocabSize: 32000,
      maxPositions: 2048,
      attentionBias: none,
    });
    expect(decoder({ model_type: 'mistral', sliding_window: null })).toMatchObject({
      ...common,
      intermediateSize: 14336,
      kvHeads: 8,
      vocabSize: 32000,
      maxPositions: 131072,
      attentionBias: none,
    });
    expect(decoder({ model_type: 'qwen2' })).toMatchObject({
      ...common,
      intermediateSize: 22016,
      kvHeads: 32,
      vocabSize: 151936,
      maxPositions: 32768,
      attentionBias: { qkv: true, o: false },
    });
  });

  it('distinguishes null from absent for kv heads, and heads of their own width', () => {
    expect(decoder({ model_type: 'llama', num_attention_heads: 16 }).kvHeads).toBe(16);
    expect(decoder({ model_type: 'qwen2', num_attention_heads: 8, num_key_value_heads: null }).kvHeads).toBe(8);
    expect(() => decoder({ model_type: 'qwen2', num_attention_heads: 8 })).toThrow(
      /a divisor of num_attention_heads \(8\)/,
    );
    expect(decoder({ model_type: 'llama', hidden_size: 100, num_attention_heads: 3, head_dim: 64 }).headDim).toBe(64);
    expect(decoder({ model_type: 'llama', attention_bias: true }).attentionBias).toEqual({ qkv: true, o: true });
  });

  it('reads both forms of the rope parameters', () => {
    const llama3 = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
      rope_type: 'llama3',
    };
    const parsed = { type: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
    const old = decoder({ model_type: 'llama', rope_theta: 5e5, rope_scaling: llama3 });
    expect([old.ropeTheta, old.ropeScaling]).toEqual([5e5, parsed]);
    expect(decoder({ model_type: 'llama', rope_parameters: { rope_theta: 5e5, ...llama3 } })).toEqual(old);
    expect(decoder({ model_type: 'llama', rope_scaling: { type: 'linear', factor: 4 } }).ropeScaling).toEqual({
      type: 'linear',
      factor: 4,
    });
    expect(decoder({ model_type: 'qwen2', rope_scaling: { type: 'dynamic', factor: 2 } }).ropeScaling).toEqual({
      type: 'dynamic',
      factor: 2,
    });
    expect(decoder({ model_type: 'qwen2', rope_scaling: null }).ropeScaling).toEqual({ type: 'default' });
  });

  it.each<[Json, string, RegExp]>([
    [{}, 'ERR_CONFIG_INVALID', /config\.json: expected a string for "model_type", received nothing/],
    [
      { model_type: 'gpt2' },
      'ERR_CONFIG_UNSUPPORTED',
      /one of llama, mistral, qwen2, .* for "model_type", received "gpt2"/,
    ],
    [{ model_type: 'mistral' }, 'ERR_CONFIG_UNSUPPORTED', /"sliding_window", received nothing/],
    [{ model_type: 'mistral', sliding_window: 4096 }, 'ERR_CONFIG_UNSUPPORTED', /"sliding_window", received 4096/],
    [
      { model_type: 'qwen2', use_sliding_window: true },
      'ERR_CONFIG_UNSUPPORTED',
      /"use_sliding_window", received true/,
    ],
    [{ model_type: 'llama', mlp_bias: true }, 'ERR_CONFIG_UNSUPPORTED', /"mlp_bias"/],
    [
      { model_type: 'llama', hidden_act: 'gelu' },
      'ERR_CONFIG_UNSUPPORTED',
      /one of silu, swish for "hidden_act", received "gelu"/,
    ],
    [
      { model_type: 'llama', hidden_size: '4096' },
      'ERR_CONFIG_INVALID',
      /an integer from 1 to 1048576 for "hidden_size", received "4096"/,
    ],
    [{ model_type: 'llama', num_hidden_layers: 0 }, 'ERR_CONFIG_INVALID', /"num_hidden_layers", received 0/],
    [{ model_type: 'llama', hidden_size: 100 }, 'ERR_CONFIG_INVALID', /a divisor of hidden_size \(100\)/],
    [{ model_type: 'llama', head_dim: 65 }, 'ERR_CONFIG_INVALID', /even head width/],
    [{ model_type: 'llama', rope_theta: -1 }, 'ERR_CONFIG_INVALID', /"rope_theta", received -1/],
    [
      { model_type: 'llama', rope_scaling: { type: 'yarn', factor: 4 } },
      'ERR_CONFIG_UNSUPPORTED',
      /default, linear, dynamic, llama3 for "rope_scaling.type"/,
    ],
    [
      { model_type: 'llama', rope_scaling: { type: 'linear' } },
      'ERR_CONFIG_INVALID',
      /a number .*for "rope_scaling.factor", received nothing/,
    ],
    [
      { model_type: 'llama', rope_scaling: { type: 'linear', factor: 0.5 } },
      'ERR_CONFIG_INVALID',
      /"rope_scaling.factor", received 0.5/,
    ],
    [
      { model_type: 'llama', rope_parameters: { partial_rotary_factor: 0.5 } },
      'ERR_CONFIG_UNSUPPORTED',
      /"rope_parameters.partial_rotary_factor"/,
    ],
    [
      {
        model_type: 'llama',
        rope_parameters: { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 },
      },
      'ERR_CONFIG_INVALID',
      /more than low_freq_factor/,
    ],
  ])('refuses %j', (json, code, message) => {
    expect(() => decoder(json)).toThrow(error(code, message));
  });
});

describe('siglipTower', () => {
  it('reads the packaged model', () => {
    const file = join(TINY, 'vision_tower/config.json');
    expect(siglipTower(configReader(readJson(file), file))).toEqual({
      ...SIGLIP,
      hiddenSize: 128,
      intermediateSize: 512,
      layers: 5,
      heads: 4,
      imageSize: 280,
      patchSize: 14,
      normEps: 1e-6,
      activation: 'gelu_pytorch_tanh',
    });
  });

  it('takes the class defaults, and looks into a whole SigLIP config', () => {
    const defaults = {
      hiddenSize: 768,
      intermediateSize: 3072,
      layers: 12,
      heads: 12,
      imageSize: 224,
      patchSize: 16,
    };
    expect(siglip({})).toEqual({ ...SIGLIP, ...defaults, normEps: 1e-6, activation: 'gelu_pytorch_tanh' });
    expect(siglip({ model_type: 'siglip' })).toMatchObject(defaults);
    expect(siglip({ model_type: 'siglip', vision_config: { image_size: 384, patch_size: 14 } })).toMatchObject({
      imageSize: 384,
      patchSize: 14,
    });
  });

  it.each<[Json, string, RegExp]>([
    [{ model_type: 'clip_vision_model' }, 'ERR_CONFIG_UNSUPPORTED', /siglip_vision_model or siglip for "model_type"/],
    [{ hidden_act: 'relu' }, 'ERR_CONFIG_UNSUPPORTED', /"hidden_act", received "relu"/],
    [{ num_attention_heads: 7 }, 'ERR_CONFIG_INVALID', /a divisor of hidden_size \(768\)/],
    [{ patch_size: 400 }, 'ERR_CONFIG_INVALID', /at most image_size \(224\)/],
    [{ model_type: 'siglip', vision_config: [] }, 'ERR_CONFIG_INVALID', /an object for "vision_config"/],
  ])('refuses %j', (json, code, message) => {
    expect(() => siglip(json)).toThrow(error(code, message));
  });
});

describe('ropeInverseFrequencies', () => {
  const small = { model_type: 'llama', hidden_size: 16, num_attention_heads: 2, max_position_embeddings: 100 };

  it('is theta^(-2i/c), and divided by the factor of linear scaling', () => {
    expect(Array.from(ropeInverseFrequencies(decoder(small)))).toEqual(
      [1, 10 ** -1, 10 ** -2, 10 ** -3].map((f) => expect.closeTo(f, 15)),
    );
    const linear = decoder({ ...small, rope_scaling: { type: 'linear', factor: 4 } });
    expect(ropeInverseFrequencies(linear)[1]).toBeCloseTo(0.025, 15);
  });

  it('dynamic scaling changes the base only beyond the trained length', () => {
    const dynamic = decoder({ ...small, rope_scaling: { type: 'dynamic', factor: 2 } });
    const plain = ropeInverseFrequencies(decoder(small));
    expect(ropeInverseFrequencies(dynamic)).toEqual(plain);
    expect(ropeInverseFrequencies(dynamic, 100)).toEqual(plain);
    // Twice the length: base * (2*2 - 1)^(8/6).
    const base = 10000 * 3 ** (8 / 6);
    expect(ropeInverseFrequencies(dynamic, 200)[3]).toBeCloseTo(base ** (-6 / 8), 15);
  });

  it('keeps high, divides low and blends middle frequencies in llama3 scaling', () => {
    const scaling = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 100,
    };
    const scaled = ropeInverseFrequencies(decoder({ ...small, rope_scaling: scaling }));
    // Turns within 100 positions: 15.9, 1.59, 0.159, 0.0159. The second is blended: (1.5915 - 1) / 3 = 0.19718.
    const keep = (10 / (2 * Math.PI) - 1) / 3;
    const expected = [1, keep * 0.1 + ((1 - keep) * 0.1) / 8, 0.01 / 8, 0.001 / 8];
    expect(Array.from(scaled)).toEqual(expected.map((f) => expect.closeTo(f, 15)));
  });
});

describe('readJson and configReader', () => {
  it('names the file that is missing, not JSON, or not an object', () => {
    const read = (content?: string) => () =>
      withFolder(content === undefined ? {} : { 'a.json': content }, (folder) => readJson(join(folder, 'a.json')));
    expect(read()).toThrow(error('ERR_CONFIG_MISSING', /a\.json: cannot be read/));
    expect(read('{"a": ')).toThrow(error('ERR_CONFIG_INVALID', /a\.json: expected JSON/));
    expect(read('[1]')).toThrow(error('ERR_CONFIG_INVALID', /a\.json: expected a JSON object, received \[1\]/));
    expect(read('\ufeff{"a": 1}')()).toEqual({ a: 1 });
  });

  it('treats null as absent, and shortens values in messages', () => {
    const reader = configReader({ a: null, long: 'x'.repeat(500), nested: { b: true } }, 'f.json');
    expect([reader.has('a'), reader.number('a', 7), reader.object('a')]).toEqual([false, 7, undefined]);
    expect(() => reader.number('long')).toThrow(/received "x{79}…$/);
    expect(() => reader.object('nested')?.string('b')).toThrow(/"nested\.b", received true/);
    expect(() => reader.boolean('a')).toThrow(/true or false for "a", received null/);
  });
});

describe('clipTower', () => {
  const clip = (json: Json) => clipTower(configReader(json, 'config.json'));

  it('takes the class defaults', () => {
    expect(clip({ model_type: 'clip_vision_model' })).toEqual({
      ...{ hiddenSize: 768, intermediateSize: 3072, layers: 12, heads: 12, imageSize: 224, patchSize: 32 },
      ...{
        ...PLAIN_VIT,
        salience: 'class',
        patchBias: false,
        classToken: true,
        preNorm: true,
        normEps: 1e-5,
        activation: 'quick_gelu',
      },
    });
    expect(() => clip({ model_type: 'siglip_vision_model' })).toThrow(
      error('ERR_CONFIG_UNSUPPORTED', /clip_vision_model/),
    );
  });
});

it('a hidden state by its index is a depth from the embedding', () => {
  const depth = (layer: number) => hiddenStateDepth(configReader({ layer }, 'config.json'), 'layer', -2, 12);
  expect([depth(-2), depth(-1), depth(0), depth(12), depth(-13)]).toEqual([11, 12, 0, 12, 0]);
  for (const layer of [13, -14, 1.5])
    expect(() => depth(layer)).toThrow(error('ERR_CONFIG_INVALID', /13 hidden states/));
});
