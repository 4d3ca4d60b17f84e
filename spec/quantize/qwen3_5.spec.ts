// `quantize` of Qwen3.5, of which it knows only the plan: layers of two kinds, of which those with states leave two small matrices in float; and
// the blocks that it runs, against the decoder's own layers.

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
import { floatsOf, type OpenPart, openParts, partOf } from '../../src/quantize/parts';
import { start } from '../../src/runtime/start';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { FIXTURES } from '../support/assets';
import { F32_NMSE, nmse } from '../support/nmse';
import { recordTurn } from '../support/turn';

const MODEL = join(FIXTURES, 'qwen_vl', 'qwen3.5');
const IMAGE = join(MODEL, 'image0.png');
/** Five layers of products on 4-bit weights, each within the tolerance of one. */
const LOGITS_NMSE = 20 * TOLERANCES.int4Exact;

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-qwen35-'));
  const turns = [{ question: 'What is there?', answer: 'It is a picture.' }];
  writeFileSync(at('set.jsonl'), JSON.stringify({ image: IMAGE, turns }));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function logits(path: string): Promise<Float32Array> {
  const model = await loadModel(path);
  const { promptLogits } = await recordTurn(model, { images: [IMAGE], question: 'What?', kv: 'f32', maxTokens: 1 });
  model.dispose();
  return promptLogits;
}

it('calibration rows run through the float decoder as a session runs them', async () => {
  const samples = [{ images: [IMAGE], turns: [{ question: 'What?', answer: 'a', truth: undefined }] }];
  const model = await loadModel(MODEL);
  const { x, positions } = await sequenceOf(model, samples[0] ?? { images: [], turns: [] });
  const { hidden } = await recordTurn(model, { images: [IMAGE], question: 'What?', kv: 'f32', maxTokens: 1 });
  const d = model.decoder.config.hiddenSize;
  const part = partOf(planOf(MODEL), 'decoder', 1);
  const open = openParts(planOf(MODEL), checkQuantizeOptions({ model: MODEL, out: 'unused' }))[2] as OpenPart;
  let rows = x;
  // The prompt of an answer ends with a thought, which history leaves out.
  const thought = model.tokenizer.encode('<think>\n\n</think>\n\n').length;
  const shared = (hidden[0]?.length ?? 0) - thought * d;
  for (const [i, name] of part.blocks.entries()) {
    expect(nmse(rows.subarray(0, shared), (hidden[i] ?? new Float32Array()).subarray(0, shared))).toBeLessThanOrEqual(
      F32_NMSE,
    );
    const block = part.block(i);
    const weights = readBlock(block, (tensor, shape) => floatsOf(open, name + tensor, shape));
    const ops = floatOps(block, weights);
    const input = float32(rows, [positions.length, d]);
    const attend = part.attend({ x, positions, visual: new Uint8Array() }, i);
    const y = start().tf.tidy(() => block.run({ ...ops, attend }, input));
    rows = floats(y).slice();
    for (const tensor of [input, y, ops]) tensor.dispose();
  }
  model.dispose();
});

it.each(['autoawq', 'compressed-tensors'] as const)('the decoder as %s, with a round trip', async (format) => {
  const out = at(format);
  const settings = { calibration: at('set.jsonl'), groupSize: 32, rows: 200, format } as const;
  const { layers } = await quantize({ model: MODEL, out, ...settings });
  for (const { rtn, chosen } of layers.flatMap(({ errors }) => errors)) expect(chosen).toBeLessThanOrEqual(rtn);
  expect(layers.map(({ errors }) => errors.map(({ group }) => group))).toEqual(
    new Array(5).fill(['qkv', 'o', 'mlp', 'down']),
  );
  const names = [...openCheckpoint(out).keys()];
  const suffix = format === 'autoawq' ? 'qweight' : 'weight_packed';
  const packed = names.filter((name) => name.endsWith(suffix));
  expect(packed).toHaveLength(4 * 6 + 7);
  expect(packed).toContain(`model.language_model.layers.0.linear_attn.in_proj_z.${suffix}`);
  expect(names).toContain('model.language_model.layers.4.linear_attn.in_proj_b.weight');
  const { quantization_config: config } = readJson(join(out, 'config.json')) as Record<string, Record<string, unknown>>;
  const ignored = (config?.ignore ?? config?.modules_to_not_convert) as string[];
  for (const name of ['a', 'b']) expect(ignored).toContain(`model.language_model.layers.0.linear_attn.in_proj_${name}`);
  await convert({ model: out, out: `${out}-f32`, format: 'float', dtype: 'f32' });
  const [own, plain, float] = [await logits(out), await logits(`${out}-f32`), await logits(MODEL)];
  expect(nmse(own, plain)).toBeLessThanOrEqual(LOGITS_NMSE);
  expect(nmse(own, float)).toBeGreaterThan(1e-6); // it does run in 4 bits
  expect(nmse(own, float)).toBeLessThan(0.3);
});
