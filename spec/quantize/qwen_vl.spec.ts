// `quantize` of Qwen2.5-VL, of which it knows nothing but the plan: the decoder in 4 bits, as the published AWQ checkpoints have it, and
// read as what it says it is.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert, quantize } from '../../src';
import { openCheckpoint } from '../../src/checkpoint/safetensors';
import { readJson } from '../../src/json';
import { loadModel } from '../../src/models/load';
import { TOLERANCES } from '../../testing/ops/tolerance';
import { FIXTURES } from '../support/assets';
import { nmse } from '../support/nmse';
import { recordTurn } from '../support/turn';

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

async function logits(path: string): Promise<Float32Array> {
  const model = await loadModel(path);
  const { promptLogits } = await recordTurn(model, { images: IMAGES, question: 'What?', kv: 'f32', maxTokens: 1 });
  model.dispose();
  return promptLogits;
}

it.each(['autoawq', 'compressed-tensors'] as const)('the decoder as %s, there and back', async (format) => {
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
