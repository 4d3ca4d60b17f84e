// POST /v1/responses with an engine that answers by a script, through the official client.
import OpenAI from 'openai';
import { SparseVilaError } from '../../src/errors';
import { responseStore } from '../../src/server/response_store';
import { type Server, serve } from '../../src/server/server';
import { type ScriptedEngine, scriptedEngine } from '../support/scripted_engine';

const PNG =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const IMAGE = { kind: 'image', image: Buffer.from(PNG.slice(PNG.indexOf(',') + 1), 'base64') };
const model = 'scripted';

let engine: ScriptedEngine;
let server: Server;
beforeAll(async () => {
  engine = scriptedEngine();
  server = await serve(engine, { port: 0, limits: { storedResponses: 3 }, log: () => undefined });
});
afterAll(() => server.close({ now: true }));
beforeEach(() => {
  engine.state.script = {};
  engine.asked.length = 0;
});

const client = () => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
const lastMessages = () => engine.asked.at(-1)?.messages;

it('a text is answered, and the answer is continued with the picture it was about', async () => {
  const content = [
    { type: 'input_image' as const, image_url: PNG, detail: 'auto' as const },
    { type: 'input_text' as const, text: 'What is it?' },
  ];
  const one = await client().responses.create({ model, instructions: 'Be brief.', input: [{ role: 'user', content }] });
  expect(one).toMatchObject({
    ...{
      object: 'response',
      status: 'completed',
      model,
      output_text: 'A cat.',
      instructions: 'Be brief.',
      error: null,
    },
    output: [
      { type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'A cat.' }] },
    ],
    usage: { input_tokens: 10, input_tokens_details: { cached_tokens: 4 }, output_tokens: 3, total_tokens: 13 },
  });
  const options = { previous_response_id: one.id, max_output_tokens: 5, temperature: 0.5 };
  const two = await client().responses.create({ model, input: 'And where?', ...options });
  expect(two.previous_response_id).toBe(one.id);
  expect(engine.asked[1]).toMatchObject({ maxTokens: 5, temperature: 0.5 });
  // Instructions do not carry over.
  expect(lastMessages()).toEqual([
    { role: 'user', content: [IMAGE, 'What is it?'] },
    { role: 'assistant', content: 'A cat.' },
    { role: 'user', content: 'And where?' },
  ]);
  expect(await client().responses.retrieve(two.id)).toMatchObject({ id: two.id, output: two.output });
  await client().responses.delete(two.id);
  await expect(client().responses.retrieve(two.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
});

it('a conversation can be sent whole, with the items of earlier responses', async () => {
  const one = await client().responses.create({ model, input: 'Hello', store: false });
  const input = [
    { role: 'user' as const, content: 'Hello' },
    ...one.output,
    { role: 'user' as const, content: 'Again' },
  ];
  await client().responses.create({ model, input: input as OpenAI.Responses.ResponseInput });
  expect(lastMessages()).toEqual([
    { role: 'user', content: 'Hello' },
    { role: 'assistant', content: 'A cat.' },
    { role: 'user', content: 'Again' },
  ]);
  const lost = client().responses.create({ model, input: 'x', previous_response_id: one.id });
  await expect(lost).rejects.toMatchObject({ status: 400, code: 'previous_response_not_found' });
});

it('events come in order', async () => {
  const events = [];
  for await (const event of await client().responses.create({ model, input: 'Hello', stream: true }))
    events.push(event);
  expect(events.map(({ type }) => type.replace('response.', ''))).toEqual([
    ...['created', 'in_progress', 'output_item.added', 'content_part.added'],
    ...['output_text.delta', 'output_text.delta', 'output_text.delta'],
    ...['output_text.done', 'content_part.done', 'output_item.done', 'completed'],
  ]);
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual(Array.from(events.keys()));
  const final = await client().responses.stream({ model, input: 'Hello' }).finalResponse();
  expect(final).toMatchObject({ output_text: 'A cat.', usage: { total_tokens: 13 } });
});

it('an answer that a limit cut off is incomplete', async () => {
  engine.state.script = { finish: 'length' };
  const whole = await client().responses.create({ model, input: 'Hello' });
  expect(whole).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
  const types: string[] = [];
  for await (const { type } of await client().responses.create({ model, input: 'Hello', stream: true }))
    types.push(type);
  expect(types.at(-1)).toBe('response.incomplete');
});

it('a schema and log-probabilities reach the engine', async () => {
  const schema = { type: 'object', properties: {} };
  const text = { format: { type: 'json_schema' as const, name: 'x', schema, strict: true } };
  const include = ['message.output_text.logprobs' as const];
  const { output } = await client().responses.create({ model, input: 'Hello', text, include, top_logprobs: 1 });
  expect(engine.asked[0]).toMatchObject({ format: { type: 'schema', schema }, logprobs: 1 });
  expect(output[0]).toMatchObject({ content: [{ logprobs: [{ token: 'A', logprob: -0.5 }, {}, {}] }] });
});

it('the least recently used responses are forgotten', async () => {
  const ids: string[] = [];
  for (let i = 0; i < 4; i++) ids.push((await client().responses.create({ model, input: `${i}` })).id);
  await expect(client().responses.retrieve(ids[0] ?? '')).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  for (const id of ids.slice(1)) expect((await client().responses.retrieve(id)).id).toBe(id);
});

it('all that is stored of a response counts', () => {
  const store = responseStore({ storedBytes: 10_000, storedResponses: 100 });
  const dialogue = [{ role: 'user' as const, content: ['Hi'] }];
  for (const id of ['a', 'b', 'c']) store.keep(id, { id, instructions: 'x'.repeat(2000) }, dialogue, 'Yes');
  expect(() => store.response('a')).toThrow('not found');
  expect(store.response('c')).toMatchObject({ id: 'c' });
  store.keep('d', { id: 'd' }, [{ role: 'user', content: new Array(1000).fill('') }], 'Yes');
  expect(() => store.response('d')).toThrow('not found');
});

it('errors before the first event have a status, later ones are events', async () => {
  const thrown = new SparseVilaError('ERR_OUT_OF_MEMORY', 'No memory');
  engine.state.script = { error: { thrown, after: 0 } };
  await expect(client().responses.create({ model, input: 'Hello', stream: true })).rejects.toMatchObject({
    status: 503,
  });
  engine.state.script = { error: { thrown, after: 1 } };
  const types: string[] = [];
  for await (const { type } of await client().responses.create({ model, input: 'Hello', stream: true }))
    types.push(type);
  expect(types.at(-1)).toBe('response.failed');
});

it.each<[object, string]>([
  [{ input: undefined }, 'input'],
  [{ input: [{ type: 'function_call_output', output: '' }] }, 'input[0].type'],
  [{ tools: [{ type: 'web_search' }] }, 'tools'],
  [{ background: true }, 'background'],
  [{ truncation: 'auto' }, 'truncation'],
  [{ conversation: 'x' }, 'conversation'],
  [{ reasoning: { effort: 'high' } }, 'reasoning'],
  [{ max_tokens: 3 }, 'max_tokens'],
  [{ stop: [null] }, 'stop'],
  [{ metadata: { a: 1 } }, 'metadata.a'],
  [{ metadata: { a: 'x'.repeat(513) } }, 'metadata.a'],
  [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, ''])) }, 'metadata'],
  [{ text: { format: { type: 'text', more: [] } } }, 'text.format.more'],
  [
    {
      input: [
        { role: 'system', content: 'x' },
        { role: 'user', content: 'y' },
      ],
      instructions: 'z',
    },
    'instructions',
  ],
])('refuses %j', async (body, param) => {
  const response = await fetch(`${server.url}/v1/responses`, {
    ...{
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, input: 'Hi', ...body }),
    },
  });
  const { error } = (await response.json()) as { error: { param: string } };
  expect([response.status, error.param]).toEqual([400, param]);
  expect(engine.asked).toEqual([]);
});
