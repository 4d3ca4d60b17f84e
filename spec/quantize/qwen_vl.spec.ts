// `quantize` of Qwen2.5-VL, of which it knows only the plan: the decoder in 4 bits, as in the published AWQ checkpoints, or tower
// and projector; and loading of the output.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert, quantize } from '../../src';
import { openCheckpoint } from '../../src/checkpoint/safetensors';
import { readJson } from '../../src/json';
import { loadModel, planOf } from '../../src/models/load';
import { float32, floats } from '../../src/ops/run';
import { floatOps, readBlock } from '../../src/quantize/block_weights';
import { sequenceOf } from '../../src/quantize/calibration';
import { checkQuantizeOptions } from '../../src/quantize/options';
import { floatsOf, type OpenPart, openParts, partOf, rowsOf } from '../../src/quantize/parts';
import { start } from '../../src/runtime/start';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { FIXTURES } from '../support/assets';
import { encoded } from '../support/media';
import { F32_NMSE, nmse } from '../support/nmse';
import { joined, recordTurn } from '../support/turn';

const CONFIG = 'config.json';
const MODEL = join(FIXTURES, 'qwen_vl', 'qwen2.5-vl');
const IMAGES = [0, 1].map((i) => join(MODEL, `image${i}.png`));
/** Three layers of products on 4-bit weights, each within the tolerance of one. */
const LOGITS_NMSE = 10 * TOLERANCES.int4Exact;

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-qwen-'));
  const turns = [{ question: 'What is there?', answer: 'It is a picture.' }];
  writeFileSync(at('set.jsonl'), IMAGES.map((image) => JSON.stringify({ image, turns })).join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function logits(path: string, images: readonly string[] = IMAGES): Promise<Float32Array> {
  const model = await loadModel(path);
  const { promptLogits } = await recordTurn(model, { images, question: 'What?', kv: 'f32', maxTokens: 1 });
  model.dispose();
  return promptLogits;
}

it.each(['autoawq', 'compressed-tensors'] as const)('the decoder as %s, with a round trip', async (format) => {
  const out = at(format);
  const { layers } = await quantize({
    model: MODEL,
    out,
    calibration: at('set.jsonl'),
    groupSize: 32,
    rows: 200,
    format,
  });
  for (const { rtn, chosen } of layers.flatMap(({ errors }) => errors)) expect(chosen).toBeLessThanOrEqual(rtn);
  const names = [...openCheckpoint(out).keys()];
  const suffix = format === 'autoawq' ? 'qweight' : 'weight_packed';
  expect(names.filter((name) => name.endsWith(suffix))).toHaveLength(3 * 7);
  expect(names).toContain(`model.layers.0.self_attn.q_proj.${suffix}`);
  const { quantization_config: settings } = readJson(join(out, 'config.json')) as Record<
    string,
    Record<string, unknown>
  >;
  const ignored = (settings?.ignore ?? settings?.modules_to_not_convert) as string[];
  expect(ignored).toContain('visual.blocks.3.attn.qkv');
  expect(ignored).toContain('visual.merger.mlp.2');
  expect(ignored).toContain('lm_head');
  await convert({ model: out, out: `${out}-f32`, format: 'float', dtype: 'f32' });
  const [packed, plain, float] = [await logits(out), await logits(`${out}-f32`), await logits(MODEL)];
  expect(nmse(packed, plain)).toBeLessThanOrEqual(LOGITS_NMSE);
  expect(nmse(packed, float)).toBeGreaterThan(1e-6); // it does run in 4 bits
  expect(nmse(packed, float)).toBeLessThan(0.2);
});

it('tower and projector, with windows and rotary positions in calibration', async () => {
  const out = at('tower');
  const { tower, projector } = await quantize({
    ...{ model: MODEL, out, calibration: at('set.jsonl'), groupSize: 32, rows: 200 },
    ...{ modules: ['tower', 'projector'], format: 'compressed-tensors' },
  });
  const errors = [...(tower?.errors ?? []), projector?.errors ?? []];
  expect(errors.map((block) => block.map(({ group }) => group))).toEqual([
    ...Array.from({ length: 4 }, () => ['qkv', 'out', 'fc1', 'fc2']),
    ['mlp.0', 'mlp.2'],
  ]);
  for (const { rtn, chosen } of errors.flat()) expect(chosen).toBeLessThanOrEqual(rtn);
  const { vision_config: vision } = readJson(join(out, 'config.json')) as Record<string, Record<string, unknown>>;
  expect(vision?.intermediate_size).toBe(64);
  await convert({ model: out, out: `${out}-f32`, format: 'float', dtype: 'f32' });
  const [packed, plain, float] = [await logits(out), await logits(`${out}-f32`), await logits(MODEL)];
  expect(nmse(packed, plain)).toBeLessThanOrEqual(LOGITS_NMSE);
  expect(nmse(packed, float)).toBeGreaterThan(1e-6);
  expect(nmse(packed, float)).toBeLessThan(0.3);
});

it('calibration rows run through the float tower as pictures do', async () => {
  const samples = [{ images: IMAGES.slice(0, 1), turns: [] }];
  const plan = planOf(MODEL);
  const part = partOf(plan, 'tower', 1);
  const [open] = openParts(plan, checkQuantizeOptions({ model: MODEL, out: 'unused' })) as [OpenPart];
  const [first] = await rowsOf(part, { model: MODEL, samples });
  if (first === undefined) throw new Error('rows of a picture');
  let { x } = first;
  const e = plan.tower.hiddenSize;
  for (const [i, name] of part.blocks.entries()) {
    const ops = floatOps(
      part.block(i),
      readBlock(part.block(i), (tensor, shape) => floatsOf(open, name + tensor, shape)),
    );
    const input = float32(x, [x.length / e, e]);
    const y = start().tf.tidy(() => part.block(i).run({ ...ops, attend: part.attend(first, i) }, input));
    x = floats(y).slice();
    for (const tensor of [input, y, ops]) tensor.dispose();
  }
  const model = await loadModel(MODEL);
  const seen = await encoded(model, IMAGES[0] ?? '');
  const order = seen.layout.merge.from;
  const features = seen.features.dataSync<'float32'>();
  const rows = joined(Array.from(order, (row) => x.subarray(row * e, (row + 1) * e)));
  expect(nmse(rows, features)).toBeLessThanOrEqual(F32_NMSE);
  seen.dispose();
  model.dispose();
});

it('the decoder of Qwen3-VL, with what deepstack adds to its rows', async () => {
  const model = join(FIXTURES, 'qwen_vl', 'qwen3-vl');
  const [out, image] = [at('qwen3'), join(model, 'image0.png')];
  writeFileSync(at('set3.jsonl'), JSON.stringify({ image, turns: [{ question: 'What?', answer: 'a b' }] }));
  const options = { groupSize: 32, rows: 200, format: 'compressed-tensors' } as const;
  const { layers } = await quantize({ model, out, calibration: at('set3.jsonl'), ...options });
  for (const { rtn, chosen } of layers.flatMap(({ errors }) => errors)) expect(chosen).toBeLessThanOrEqual(rtn);
  const { quantization_config: settings } = readJson(join(out, CONFIG)) as Record<string, Record<string, unknown>>;
  expect(settings?.ignore).toContain('model.visual.deepstack_merger_list.1.linear_fc1');
  await convert({ model: out, out: `${out}-f32`, format: 'float', dtype: 'f32' });
  const [packed, plain, float] = [
    await logits(out, [image]),
    await logits(`${out}-f32`, [image]),
    await logits(model, [image]),
  ];
  expect(nmse(packed, plain)).toBeLessThanOrEqual(LOGITS_NMSE);
  const loss = nmse(packed, float);
  expect(loss).toBeGreaterThan(1e-6);
  expect(loss).toBeLessThan(0.2);
});

it('calibration rows of Qwen3-VL run through the float decoder as a session runs them', async () => {
  const folder3 = join(FIXTURES, 'qwen_vl', 'qwen3-vl');
  const image = join(folder3, 'image0.png');
  const samples = [{ images: [image], turns: [{ question: 'What?', answer: 'a', truth: undefined }] }];
  const model = await loadModel(folder3);
  const { x, positions, added } = await sequenceOf(model, samples[0] ?? { images: [], turns: [] });
  const { hidden } = await recordTurn(model, { images: [image], question: 'What?', kv: 'f32', maxTokens: 1 });
  const d = model.decoder.config.hiddenSize;
  const t = (hidden[0]?.length ?? 0) / d;
  expect(added).toHaveLength(2);
  const part = partOf(planOf(folder3), 'decoder', 1);
  const open = openParts(planOf(folder3), checkQuantizeOptions({ model: folder3, out: 'unused' }))[2] as OpenPart;
  let rows = x;
  for (const [i, name] of part.blocks.slice(0, 3).entries()) {
    expect(nmse(rows.subarray(0, t * d), hidden[i] ?? [])).toBeLessThanOrEqual(F32_NMSE);
    const ops = floatOps(
      part.block(i),
      readBlock(part.block(i), (tensor, shape) => floatsOf(open, name + tensor, shape)),
    );
    const input = float32(rows, [positions.length, d]);
    const attend = part.attend({ x, positions, visual: new Uint8Array() }, i);
    const y = start().tf.tidy(() => part.block(i).run({ ...ops, attend }, input));
    rows = floats(y).map((value, at) => value + (added?.[i]?.[at] ?? 0));
    for (const tensor of [input, y, ops]) tensor.dispose();
  }
  model.dispose();
});
