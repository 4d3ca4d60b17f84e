// Checkpoints with oddities that transformers and Python's json read and that change no number: they load, and answer as before.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from '../../src';
import { TINY } from '../support/assets';
import { changeJson, changeTensors, withCopy } from '../support/checkpoint';

const SCENE = join(TINY, '../demo/scene.png');
const QUESTION = 'Where is the yellow 2?';
const ROOT = 'config.json';
const LLM = 'llm/config.json';
const TOWER = 'vision_tower/config.json';
const PIXELS = 'vision_tower/preprocessor_config.json';
const GENERATION = 'llm/generation_config.json';
const WEIGHTS = 'llm/model.safetensors';

type Edit = (folder: string) => void;
const json =
  (file: string, changes: Record<string, unknown>): Edit =>
  (folder) =>
    changeJson(join(folder, file), changes);
/** Adds text behind the opening brace of a JSON file, as no JavaScript writes it. */
const raw =
  (file: string, text: string): Edit =>
  (folder) =>
    writeFileSync(join(folder, file), readFileSync(join(folder, file), 'utf8').replace('{', `{${text},`));
const written =
  (file: string, text: string | Uint8Array): Edit =>
  (folder) => {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    writeFileSync(join(folder, file), text);
  };
const tensor =
  (name: string, shape: readonly number[], dtype = 'F32', file = WEIGHTS): Edit =>
  (folder) =>
    changeTensors(join(folder, file), (all) => {
      const bytes = shape.reduce((a, b) => a * b, dtype === 'F8_E4M3' ? 1 : 4);
      all.set(name, { dtype, shape, data: new Uint8Array(bytes) });
    });
const header =
  (change: (header: Record<string, unknown>) => string): Edit =>
  (folder) => {
    const file = join(folder, WEIGHTS);
    const bytes = readFileSync(file);
    const start = 8 + Number(bytes.readBigUInt64LE());
    const text = Buffer.from(change(JSON.parse(bytes.subarray(8, start).toString()) as Record<string, unknown>));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([length, text, bytes.subarray(start)]));
  };
const all =
  (...edits: readonly Edit[]): Edit =>
  (folder) => {
    for (const edit of edits) edit(folder);
  };

const ODDITIES: readonly (readonly [what: string, edit: Edit])[] = [
  // Tags and keys that have no effect.
  ['other architectures', json(LLM, { architectures: ['MyForCausalLM'] })],
  ['no architectures and no version', json(ROOT, { architectures: undefined, transformers_version: undefined })],
  ['dtype beside torch_dtype', json(LLM, { dtype: 'float16', torch_dtype: null })],
  ['_name_or_path of another machine', json(LLM, { _name_or_path: 'C:\\models\\llm', transformers_version: '9.9' })],
  [
    'settings of training',
    json(ROOT, { mm_projector_lr: 1e-4, tune_vision_tower: true, lora_r: 64, resume_path: '/tmp/x' }),
  ],
  [
    'settings of videos',
    json(ROOT, { num_video_frames: 64, fps: 'x', video_encoder: '{"_target_": "TSPVideoEncoder"}' }),
  ],
  ['parts given as objects', json(ROOT, { llm_cfg: { hidden_size: 1 }, vision_tower_cfg: {}, mm_projector_cfg: null })],
  ['parts given as paths', json(ROOT, { llm_cfg: '/home/me/nvila/llm/', vision_tower_cfg: './vision_tower' })],
  ['scales that are off', json(ROOT, { s2: false, dynamic_s2: null, s2_scales: '448,896', max_tiles: 12 })],
  ['the resolution that the tower has', json(ROOT, { vision_resolution: 280, interpolate_mode: 'linear' })],
  [
    'dropout and cache',
    json(LLM, { attention_dropout: 0.1, use_cache: false, pretraining_tp: 2, initializer_range: 0 }),
  ],
  ['a window that is off', json(LLM, { use_sliding_window: 0, sliding_window: 4096, max_window_layers: 2 })],
  [
    'a window of layers beyond the last',
    json(LLM, { use_sliding_window: true, sliding_window: 16, max_window_layers: 4 }),
  ],
  [
    'a window as long as the context',
    json(LLM, { use_sliding_window: true, sliding_window: 32768, max_window_layers: 0 }),
  ],
  ['layer types, all full', json(LLM, { layer_types: Array(4).fill('full_attention') })],
  ['the name swish', json(LLM, { hidden_act: 'swish' })],
  ['the name gelu_new', json(TOWER, { hidden_act: 'gelu_new' })],
  ['empty rope_scaling', json(LLM, { rope_scaling: {} })],
  [
    'rope_parameters, as transformers 5 writes',
    json(LLM, { rope_theta: undefined, rope_parameters: { rope_type: 'default', rope_theta: 1e5 } }),
  ],
  ['1 for true', json(LLM, { tie_word_embeddings: 1 })],
  ['numbers with a point', raw(LLM, '"ignored": 1.0')],
  // JSON as Python writes and reads it.
  [
    'a byte order mark',
    (folder) => writeFileSync(join(folder, LLM), `\ufeff${readFileSync(join(folder, LLM), 'utf8')}`),
  ],
  ['NaN and Infinity', raw(LLM, '"loss": NaN, "best": [Infinity, -Infinity, {"x": NaN}]')],
  ['a number beyond every double', raw(LLM, '"rate": 1e999, "steps": 123456789012345678901234567890')],
  ['a key twice, the last one right', raw(LLM, '"hidden_size": 7, "model_type": "bloom"')],
  ['lone surrogates and escapes', raw(LLM, '"note": "\\ud800 \\u0000 \\u001b[31m"')],
  ['a key __proto__', raw(LLM, '"__proto__": {"hidden_size": 7}')],
  [
    'Windows line ends',
    (folder) => writeFileSync(join(folder, LLM), readFileSync(join(folder, LLM), 'utf8').replaceAll('\n', '\r\n')),
  ],
  // Files that other tools write.
  [
    'files of other tools',
    all(
      ...[
        '.DS_Store',
        'llm/._model.safetensors',
        'llm/training_args.bin',
        'llm/pytorch_model.bin',
        'llm/README.md',
      ].map((file) => written(file, new Uint8Array([0, 1, 2]))),
      ...['trainer_state.json', 'llm/.gitattributes', 'llm/trainer_state.json', '.cache/huggingface/x.lock'].map(
        (file) => written(file, 'not JSON'),
      ),
    ),
  ],
  // Image settings that are not used.
  ['a filter that VILA does not ask for', json(PIXELS, { resample: 0, do_resize: false })],
  [
    'SigLIP, which leaves out its defaults',
    json(PIXELS, { resample: undefined, image_mean: undefined, image_std: null, do_rescale: undefined }),
  ],
  ['a crop that is off', json(PIXELS, { do_center_crop: false, crop_size: 7, do_pad: 0, pad_size: 3 })],
  ['the tag of another class', json(PIXELS, { image_processor_type: 'MyImageProcessor', processor_class: 5 })],
  // Answers.
  ['top_p 0 while greedy', json(GENERATION, { top_p: 0, top_k: -1, temperature: 0, min_p: 7, typical_p: 'x' })],
  [
    'beam settings of one beam',
    json(GENERATION, { num_beams: 1, early_stopping: 'never', length_penalty: 3, num_return_sequences: 1 }),
  ],
  [
    'ids of none',
    json(GENERATION, { eos_token_id: [426, -1, 99999], bos_token_id: 'x', pad_token_id: 1e9, max_new_tokens: 1e15 }),
  ],
  ['no generation config', (folder) => writeFileSync(join(folder, GENERATION), '{}')],
  // Tensors.
  ['inverse frequencies', tensor('model.layers.0.self_attn.rotary_emb.inv_freq', [32])],
  [
    'inverse frequencies of every layer',
    (folder) => {
      for (const layer of [0, 1]) tensor(`model.layers.${layer}.self_attn.rotary_emb.inv_freq`, [32])(folder);
    },
  ],
  ['position ids', tensor('vision_model.embeddings.position_ids', [1, 400], 'F32', 'vision_tower/model.safetensors')],
  ['the other half of a SigLIP', tensor('text_model.embeddings.weight', [4], 'F32', 'vision_tower/model.safetensors')],
  ['a tensor without elements', tensor('model.layers.0.self_attn.sinks', [0, 7])],
  ['a bias of zeros', tensor('model.layers.1.self_attn.o_proj.bias', [256])],
  ['inverse frequencies of a type that is not read', tensor('model.rotary_emb.inv_freq', [32], 'F8_E4M3')],
  ['no metadata', header(({ __metadata__: _, ...rest }) => JSON.stringify(rest))],
  [
    'metadata of others',
    header((rest) => JSON.stringify({ ...rest, __metadata__: { format: 'flax', n: 5, deep: [[]] } })),
  ],
  ['a padded header', header((rest) => `${JSON.stringify(rest)}\n        `)],
];

describe('a checkpoint with a harmless oddity answers as before', () => {
  async function answer(folder: string): Promise<readonly unknown[]> {
    const model = await load(folder);
    const session = model.session();
    try {
      const turn = session.ask(QUESTION, { images: [SCENE], maxTokens: 12 });
      return [await turn.text(), turn.stats?.tokens.prompt];
    } finally {
      session[Symbol.dispose]();
      model.dispose();
    }
  }
  let expected: readonly unknown[];
  beforeAll(async () => {
    expected = await answer(TINY);
  });

  it('the unchanged checkpoint gives the right answer', () => {
    expect(expected[0]).toBe('d5');
  });

  it.each(ODDITIES)('%s', async (_, edit) => {
    const found = await withCopy(TINY, (folder) => {
      edit(folder);
      return answer(folder);
    });
    expect(found).toEqual(expected);
  });

  it.each([{ top_p: 0 }, { top_k: -1 }, { top_p: 7, top_k: 'x' }, { min_p: 0.5 }])(
    'sampling by %j does not prevent greedy answers',
    async (settings) => {
      await withCopy(TINY, async (folder) => {
        changeJson(join(folder, GENERATION), { do_sample: true, temperature: 0.5, ...settings });
        const model = await load(folder);
        const session = model.session();
        const text = await session.ask(QUESTION, { images: [SCENE], maxTokens: 12, temperature: 0 }).text();
        session[Symbol.dispose]();
        model.dispose();
        expect(text).toBe('d5');
      });
    },
  );
});

describe('start_tokens and end_tokens', () => {
  it('are embedded before and after each image', async () => {
    const rows = async (encoder: Record<string, unknown>): Promise<number> =>
      withCopy(TINY, async (folder) => {
        const target = { _target_: 'llava.model.encoders.BasicImageEncoder' };
        changeJson(join(folder, ROOT), { image_encoder: JSON.stringify({ ...target, ...encoder }) });
        const model = await load(folder);
        const session = model.session();
        const turn = session.ask(QUESTION, { images: [SCENE, SCENE], maxTokens: 2 });
        await turn.text();
        const runs = turn.stats?.media.flatMap(({ layout }) => layout.runs) ?? [];
        expect(runs.map(({ before = '' }) => before)).toEqual([0, 1].map(() => encoder.start_tokens ?? ''));
        const around = runs.map(({ before = '', after = '' }) =>
          model.tokenizer.encode(before).concat(model.tokenizer.encode(after)),
        );
        session[Symbol.dispose]();
        model.dispose();
        return (turn.stats?.tokens.prompt ?? 0) - around.flat().length;
      });
    const plain = await rows({});
    expect(await rows({ start_tokens: 'picture: ' })).toBe(plain);
    expect(await rows({ start_tokens: 'picture: ', end_tokens: null })).toBe(plain);
    expect(await rows({ start_tokens: null, end_tokens: ' of a picture\n' })).toBe(plain);
  });
});
