// 200 random schemas: whatever a model of random weights finishes is JSON and satisfies the schema, by an independent validator.
// `SCHEMAS` and `SCHEMA_SEED` choose others.

import Ajv from 'ajv/dist/2020';
import addFormats from 'ajv-formats';
import { SparseVilaError } from '../../src';
import { compileFormat } from '../../src/grammar/constraint';
import { randomAnswer, randomSchema, randomVocabulary } from '../support/random_schemas';

const COUNT = Number(process.env.SCHEMAS ?? 200);
const FIRST = Number(process.env.SCHEMA_SEED ?? 1000);
const ANSWERS = 3;

const ajv = new Ajv({ strict: false, ownProperties: true });
addFormats(ajv);

it(`${COUNT} random schemas, ${ANSWERS} answers each: all that end are valid`, () => {
  const model = randomVocabulary(2000);
  const faults: unknown[] = [];
  let finished = 0;
  let impossible = 0;
  for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
    const schema = randomSchema(seed);
    const isValid = ajv.compile(schema);
    try {
      const format = compileFormat({ type: 'schema', schema });
      for (let answer = 0; answer < ANSWERS; answer++) {
        const { text, isFinished } = randomAnswer(model, format, seed * 10 + answer, 200);
        if (!isFinished) continue;
        finished++;
        if (!isValid(JSON.parse(text))) faults.push({ seed, text, errors: isValid.errors, schema });
      }
    } catch (error) {
      const isRefused = error instanceof SparseVilaError && error.message.includes('finite length satisfies');
      if (isRefused) impossible++;
      else faults.push({ seed, error, schema: JSON.stringify(schema) });
    }
  }
  expect(faults).toEqual([]);
  // A schema may require what no text can be, and an answer may be cut; most are neither.
  expect(impossible).toBeLessThan(COUNT / 5);
  expect(finished).toBeGreaterThan(ANSWERS * COUNT * 0.7);
  if (process.env.SCHEMAS !== undefined) console.log({ finished, impossible });
});
