// A conversation through the functions of the AI SDK; prints the results as JSON. Needs a Node that can load `ai`: 20.19 or later.
import { readFile } from 'node:fs/promises';
import { PACKAGED_MODEL, PACKAGED_PICTURE } from 'sparsevila';
import { createSparseVila } from 'sparsevila/ai';

const sdk = await import('ai').catch((error) => {
  console.log(JSON.stringify({ skipped: `ai does not load in Node ${process.versions.node}: ${error.message}` }));
  process.exit(0);
});
const { generateText, jsonSchema, Output, streamText } = sdk;
const sparsevila = createSparseVila({ sparsity: { method: 'sparsevila' } });
const model = sparsevila(PACKAGED_MODEL);
const bytes = await readFile(PACKAGED_PICTURE);
const user = (...content) => ({ role: 'user', content });
const text = (words) => ({ type: 'text', text: words });
const picture = { type: 'file', mediaType: 'image/png', data: bytes };
const where = user(picture, text('Where is the yellow 2?'));

const first = await generateText({ model, messages: [where], presencePenalty: 1 });
let streamed = '';
const inline = { ...picture, data: `data:image/png;base64,${bytes.toString('base64')}` };
for await (const piece of streamText({ model, messages: [user(inline, text('Read row 7.'))] }).textStream)
  streamed += piece;
const turns = await generateText({
  model,
  messages: [where, { role: 'assistant', content: first.text }, user(text('How many orange objects are there?'))],
});
const properties = { cell: { type: 'string', pattern: '^[a-j]([1-9]|10)$' } };
const schema = jsonSchema({ type: 'object', properties, required: ['cell'], additionalProperties: false });
const { output } = await generateText({ model, messages: [where], output: Output.object({ schema }) });

const abort = new AbortController();
abort.abort();
const aborted = await generateText({ model, messages: [where], abortSignal: abort.signal, maxRetries: 0 }).catch(
  (error) => error,
);
let left = false;
for await (const _ of streamText({ model, messages: [where] }).textStream) {
  left = true;
  break;
}
const refusing = Output.object({ schema: jsonSchema({ type: 'object', not: {} }) });
const refused = await generateText({ model, messages: [where], output: refusing }).catch((error) => error);
console.log(
  JSON.stringify({
    ...{ text: first.text, streamed, turns: turns.text, output, left },
    warnings: first.warnings.map(({ feature }) => feature),
    ...{ aborted: aborted.name, refused: refused.code },
  }),
);
