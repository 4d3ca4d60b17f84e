// The official OpenAI client and the AI SDK, unmodified, in a conversation about two pictures with the packaged model. Answers are those of a
// session of the library.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { type Engine, load, openEngine, sparseVila } from '../../src';
import { type Server, serve } from '../../src/server/server';
import { scene, TINY } from '../support/assets';

const FIRST = ['Here are two pictures. What is at b4 in the first?', scene(0), scene(1)] as const;
const AI_SDK = join(__dirname, '../../../spec/support/ai_sdk.mjs');
const SECOND = 'How many shapes are there?';

let engine: Engine;
let server: Server;
let truth: { first: string; second: string };
beforeAll(async () => {
  using model = await load(TINY);
  using chat = model.session({ method: sparseVila(), system: 'Be brief.' });
  const [text, ...pictures] = FIRST;
  const media = pictures.map((image) => ({ kind: 'image' as const, image }));
  truth = { first: await chat.ask([...media, text]).text(), second: await chat.ask(SECOND).text() };
  engine = await openEngine(TINY, { maxRunning: 4 });
  server = await serve(engine, { port: 0, apiKeys: ['a-key'] });
});
afterAll(async () => {
  await server.close({ now: true });
  await engine.close();
});

const dataUrl = (path: string): string => `data:image/png;base64,${readFileSync(path).toString('base64')}`;

describe('the OpenAI client', () => {
  const client = (apiKey = 'a-key') => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
  const first: OpenAI.ChatCompletionMessageParam[] = [
    { role: 'system', content: 'Be brief.' },
    {
      role: 'user',
      content: [
        { type: 'image_url', image_url: { url: dataUrl(FIRST[1]) } },
        { type: 'image_url', image_url: { url: dataUrl(FIRST[2]), detail: 'low' } },
        { type: 'text', text: FIRST[0] },
      ],
    },
  ];

  it('holds a conversation, streamed and not', async () => {
    const model = (await client().models.list()).data[0]?.id ?? '';
    const one = await client().chat.completions.create({ model, messages: first });
    expect(one.choices[0]?.message.content).toBe(truth.first);
    const answer = { role: 'assistant' as const, content: one.choices[0]?.message.content ?? '' };
    const stream = client().chat.completions.stream({
      ...{
        model,
        messages: [...first, answer, { role: 'user', content: SECOND }],
        stream_options: { include_usage: true },
      },
    });
    expect((await stream.finalChatCompletion()).choices[0]?.message.content).toBe(truth.second);
    expect((await stream.totalUsage()).prompt_tokens).toBeGreaterThan(
      one.usage?.prompt_tokens ?? Number.POSITIVE_INFINITY,
    );
  });

  it('gets log-probabilities, which rank the tokens of a greedy answer first', async () => {
    const options = { model: server.model, messages: first, logprobs: true, top_logprobs: 3 };
    const [choice] = (await client().chat.completions.create(options)).choices;
    const tokens = choice?.logprobs?.content ?? [];
    expect(tokens.map(({ token }) => token).join('')).toBe(truth.first);
    for (const { token, logprob, top_logprobs: top } of tokens) {
      expect(top).toHaveLength(3);
      expect(top[0]).toMatchObject({ token, logprob });
    }
  });

  it('gets JSON, of a schema or any', async () => {
    const schema = {
      ...{ type: 'object', required: ['cell', 'count'], additionalProperties: false },
      properties: { cell: { type: 'string', enum: ['b4', 'c5'] }, count: { type: 'integer', minimum: 0, maximum: 9 } },
    };
    const format = { type: 'json_schema' as const, json_schema: { name: 'x', schema, strict: true } };
    const options = { model: server.model, messages: first, max_tokens: 60 };
    const parsed = await client().chat.completions.parse({ ...options, response_format: format });
    expect(parsed.choices[0]?.message.parsed).toEqual({
      ...{ cell: expect.stringMatching(/^(b4|c5)$/), count: expect.any(Number) },
    });
    const any = await client().chat.completions.create({ ...options, response_format: { type: 'json_object' } });
    if (any.choices[0]?.finish_reason === 'stop') JSON.parse(any.choices[0].message.content ?? '');
    const refused = { ...format, json_schema: { ...format.json_schema, schema: { type: 'strin' } } };
    await expect(client().chat.completions.create({ ...options, response_format: refused })).rejects.toMatchObject({
      status: 400,
    });
  });

  it('names what was wrong', async () => {
    const broken = { type: 'image_url' as const, image_url: { url: 'data:image/png;base64,AAAA' } };
    const messages = [{ role: 'user' as const, content: [broken, { type: 'text' as const, text: 'What?' }] }];
    await expect(client().chat.completions.create({ model: server.model, messages })).rejects.toMatchObject({
      ...{ status: 400, code: expect.stringMatching(/^ERR_IMAGE_/), requestID: expect.stringMatching(/^req_/) },
    });
    await expect(client('another').models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  });

  it('leaves a stream early', async () => {
    const stream = await client().chat.completions.create({ model: server.model, messages: first, stream: true });
    for await (const _ of stream) break;
    while (engine.stats().running > 0 || server.held() > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(engine.stats().total.aborted + engine.stats().total.answered).toBeGreaterThan(0);
  });
});

it('the AI SDK holds a conversation, streamed and not, with sparsity of its own', async () => {
  const [question, ...pictures] = FIRST;
  const given = JSON.stringify({ model: server.model, question, second: SECOND, pictures, apiKey: 'a-key' });
  const { stdout } = await promisify(execFile)(process.execPath, [AI_SDK, server.url, given]);
  const { texts, usage, wrong } = JSON.parse(stdout) as {
    texts: string[];
    usage: { inputTokens: number; outputTokens: number }[];
    wrong: object;
  };
  expect(texts).toEqual([truth.first, truth.second]);
  expect(usage[1]?.inputTokens).toBeGreaterThan(usage[0]?.inputTokens ?? Number.POSITIVE_INFINITY);
  expect(usage[2]?.inputTokens).toBeLessThan(usage[0]?.inputTokens ?? 0);
  expect(wrong).toEqual({ status: 404, message: expect.stringContaining('does not exist') });
});
