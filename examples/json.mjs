// Answers that are data: each is held to a JSON schema while it is decoded. node json.mjs [CHECKPOINT [PICTURE]]
import { load, PACKAGED_MODEL, PACKAGED_PICTURE } from 'sparsevila';

const schema = {
  type: 'object',
  properties: {
    shapes: { type: 'integer', minimum: 0, maximum: 100 },
    colors: { type: 'array', items: { enum: ['red', 'green', 'blue', 'yellow'] }, maxItems: 3 },
    cell: { type: 'string', pattern: '^[a-j]([1-9]|10)$' },
  },
  required: ['shapes', 'colors', 'cell'],
  additionalProperties: false,
};
const [checkpoint = PACKAGED_MODEL, picture = PACKAGED_PICTURE] = process.argv.slice(2);
const model = await load(checkpoint);
const chat = model.session();
const answer = chat.ask('Count the shapes, name their colors, and find the yellow 2.', {
  images: [picture],
  format: { type: 'schema', schema },
  logprobs: 0,
});
const { shapes, colors, cell } = JSON.parse(await answer);
console.log(`${shapes} shapes, ${colors.length} colors, at ${cell}`);

// What the model was least sure of.
const tokens = answer.stats?.logprobs ?? [];
const doubt = tokens.reduce((least, token) => (token.logprob < least.logprob ? token : least));
console.log(`least likely token: ${JSON.stringify(doubt.text)}`);
chat.dispose();
model.dispose();
