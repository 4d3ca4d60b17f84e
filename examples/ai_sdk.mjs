// The model as one of the AI SDK (`npm install ai@7`), in this process: node ai_sdk.mjs [CHECKPOINT [PICTURE]]
import { readFile } from 'node:fs/promises';
import { generateText, jsonSchema, Output, streamText } from 'ai';
import { PACKAGED_MODEL, PACKAGED_PICTURE } from 'sparsevila';
import { sparsevila } from 'sparsevila/ai';

const [checkpoint = PACKAGED_MODEL, picture = PACKAGED_PICTURE] = process.argv.slice(2);
const model = sparsevila(checkpoint, { sparsity: { method: 'sparsevila' } });
const image = { type: /** @type {const} */ ('file'), mediaType: 'image', data: await readFile(picture) };
const ask = (/** @type {string} */ text) => [
  { role: /** @type {const} */ ('user'), content: [image, { type: /** @type {const} */ ('text'), text }] },
];

const { text, usage } = await generateText({ model, messages: ask('Where is the yellow 2?') });
console.log(`${text} (${usage.inputTokens} tokens in, ${usage.outputTokens} out)`);

for await (const piece of streamText({ model, messages: ask('Read row 7.') }).textStream) process.stdout.write(piece);

/** @type {import('ai').FlexibleSchema<{ cell: string }>} */
const schema = jsonSchema({
  type: 'object',
  properties: { cell: { type: 'string', pattern: '^[a-j]([1-9]|10)$' } },
  required: ['cell'],
  additionalProperties: false,
});
const { output } = await generateText({
  model,
  output: Output.object({ schema }),
  messages: ask('Where is the yellow 2?'),
});
console.log(`\n${output.cell}`);
