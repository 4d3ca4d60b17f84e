// Masks against their definition: a token is allowed if the expression has a derivative by all of its bytes.

import { compileFormat, constraintOf } from '../../src/grammar/constraint';
import { masks } from '../../src/grammar/masks';
import { vocabularyOf } from '../../src/grammar/vocabulary';
import { uniform } from '../../src/text/random';
import { randomSchema, randomVocabulary } from '../support/random_schemas';

const model = randomVocabulary(1200);
const { bytes } = model.tokenizer;

const isSet = (bits: Uint32Array, id: number): boolean => (((bits[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;

it.each(Array.from({ length: 12 }, (_, i) => 300 + i))('the masks along an answer, schema %i', (seed) => {
  const { e, start } = compileFormat({
    type: 'schema',
    schema: { type: 'array', items: randomSchema(seed), maxItems: 30, $defs: randomSchema(seed).$defs },
  });
  const own = masks(
    e,
    vocabularyOf(bytes, 1200, (id) => id === model.stop),
  );
  const random = uniform(seed);
  const differ: unknown[] = [];
  let state = start;
  let text = '';
  for (let step = 0; step < 40 && state !== e.empty; step++) {
    const allowed = own.allowed(state);
    const after = (id: number) => bytes.bytesOf(id).reduce((one, byte) => e.derivative(one, byte), state);
    const ids = Array.from({ length: 1199 }, (_, id) => id).filter((id) => after(id) !== e.fail);
    for (let id = 0; id < 1199; id++) if (isSet(allowed, id) !== ids.includes(id)) differ.push({ text, id });
    const id = ids[Math.floor(ids.length * random() ** 3)] ?? 0;
    text += Buffer.from(bytes.bytesOf(id)).toString('latin1');
    state = after(id);
  }
  expect(differ).toEqual([]);
  expect(text.length).toBeGreaterThan(1);
});

describe('a constraint', () => {
  const allowed = (schema: Record<string, unknown>, taken: string): string[] => {
    const constraint = constraintOf(model, compileFormat({ type: 'schema', schema }));
    for (const byte of Buffer.from(taken)) constraint.accept(byte);
    const bits = constraint.allowed();
    return Array.from({ length: 1200 }, (_, id) => id)
      .filter((id) => isSet(bits, id))
      .map((id) => (id === model.stop ? 'stop' : Buffer.from(bytes.bytesOf(id)).toString()));
  };

  it('allows a stop id exactly where the text is complete', () => {
    expect(allowed({ type: 'integer', maximum: 20 }, '1')).toEqual([...'0123456789', 'stop']);
    expect(allowed({ type: 'integer', maximum: 20 }, '-')).toEqual([...'123456789']);
    expect(allowed({ const: true }, 'true')).toEqual(['stop']);
    expect(new Set(allowed({ enum: ['ab', 'a'] }, '"a'))).toEqual(new Set(['"', 'b']));
  });

  it('counts characters, not bytes', () => {
    const schema = { type: 'string', maxLength: 1, minLength: 1 };
    expect(allowed(schema, '"👍')).toEqual(['"']);
    expect(allowed(schema, '"')).toEqual(expect.arrayContaining(['a', '你', '👍', '\\']));
    expect(allowed(schema, '"')).not.toContain('"');
    expect(allowed(schema, '"\\u00')).toEqual(expect.arrayContaining(['a', 'F', '0']));
  });

  it('writes a leading space that a SentencePiece vocabulary begins with', () => {
    const spaced = { ...model, tokenizer: { bytes: { ...bytes, leadingSpaces: 1 } } };
    const constraint = constraintOf(spaced, compileFormat({ type: 'schema', schema: { const: 1 } }));
    expect([0x20, 0x31].map((id) => isSet(constraint.allowed(), id))).toEqual([true, true]);
    constraint.accept(0x20);
    expect([0x20, 0x31].map((id) => isSet(constraint.allowed(), id))).toEqual([false, true]);
    constraint.accept(0x31);
    expect(constraint.isOver).toBe(true);
  });

  it('names the vocabulary if no token continues the text', () => {
    const poor = {
      ...model,
      tokenizer: { bytes: { ...bytes, isSpecial: (id: number) => id < 256 || id >= model.stop } },
    };
    const constraint = constraintOf(
      poor,
      compileFormat({ type: 'schema', schema: { type: 'integer', maximum: 3, minimum: 0 } }),
    );
    expect(() => constraint.allowed()).toThrow('vocabulary');
  });
});
