// POST /v1/chat/completions with an engine that answers by a script: what the engine is asked, and what the official client receives.
import OpenAI from 'openai';
import { SparseVilaError } from '../../src/errors';
import { type Server, type ServerOptions, serve } from '../../src/server/server';
import { type Script, type ScriptedEngine, scriptedEngine } from '../support/scripted_engine';

const PNG =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const MODEL = 'scripted';
const HELLO = [{ role: 'user' as const, content: 'Hello' }];

let engine: ScriptedEngine;
let server: Server;
const logged: string[] = [];

async function start(options: ServerOptions = {}): Promise<void> {
  await server?.close({ now: true });
  engine = scriptedEngine();
  server = await serve(engine, { port: 0, log: (line) => logged.push(line), ...options });
}

beforeAll(() => start());
afterAll(() => server.close({ now: true }));
beforeEach(() => {
  engine.state.script = {};
  engine.asked.length = 0;
  logged.length = 0;
});

const client = (options: object = {}) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0, ...options });
const script = (next: Script): void => {
  engine.state.script = next;
};
const post = (body: unknown, path = '/v1/chat/completions') =>
  fetch(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

describe('what the engine is asked', () => {
  it('has the messages, with parts at their places', async () => {
    await client().chat.completions.create({
      model: MODEL,
      messages: [
        { role: 'developer', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'First ' },
            { type: 'image_url', image_url: { url: PNG, detail: 'high' } },
            { type: 'text', text: ' then ' },
            { type: 'image_url', image_url: { url: PNG }, prompt_cache_breakpoint: { mode: 'explicit' } },
          ],
        },
        { role: 'assistant', content: [{ type: 'text', text: 'Yes' }] },
        { role: 'user', content: 'Where?' },
        { role: 'user', content: 'And why?' },
      ],
    });
    const image = { kind: 'image', image: Buffer.from(PNG.slice(PNG.indexOf(',') + 1), 'base64') };
    expect(engine.asked[0]?.messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: ['First ', image, ' then ', image] },
      { role: 'assistant', content: 'Yes' },
      { role: 'user', content: 'Where?\n\nAnd why?' },
    ]);
  });

  it('has every option', async () => {
    const schema = { type: 'object', properties: {} };
    await client().chat.completions.create({
      ...{
        model: MODEL,
        messages: HELLO,
        temperature: 0.5,
        top_p: 0.9,
        seed: 7,
        stop: ['a', 'b'],
        max_tokens: 9,
        n: 2,
      },
      ...{ logprobs: true, top_logprobs: 2, logit_bias: { '5': -100 }, user: 'me', max_completion_tokens: 8 },
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } },
      ...({
        top_k: 3,
        repetition_penalty: 1.1,
        sparsity: { method: 'random', prefill: 0.3, decode: 0.2, seed: 1 },
      } as object),
    });
    const [one, two] = engine.asked;
    expect(one).toEqual({
      ...{ messages: HELLO, temperature: 0.5, topP: 0.9, topK: 3, repetitionPenalty: 1.1, seed: 7, stop: ['a', 'b'] },
      ...{ maxTokens: 8, logprobs: 2, logitBias: { 5: -100 }, format: { type: 'schema', schema } },
      sparsity: { method: 'random', prefillSparsity: 0.3, decodeSparsity: 0.2, seed: 1 },
    });
    expect(two).toEqual({ ...one, seed: 8 });
  });

  it('asks for an object where a client wants JSON without a schema', async () => {
    await client().chat.completions.create({ model: MODEL, messages: HELLO, response_format: { type: 'json_object' } });
    expect(engine.asked[0]?.format).toEqual({ type: 'schema', schema: { type: 'object' } });
  });

  it('has the sparsity of the server, changed by what the request names', async () => {
    await start({ sparsity: { method: 'sparsevila', prefillSparsity: 0.5 } });
    await post({ model: MODEL, messages: HELLO, sparsity: { decode: 0.9 } });
    await post({ model: MODEL, messages: HELLO, sparsity: 'dense' });
    await post({ model: MODEL, messages: HELLO });
    expect(engine.asked.map(({ sparsity }) => sparsity)).toEqual([
      { method: 'sparsevila', prefillSparsity: 0.5, decodeSparsity: 0.9 },
      { method: 'dense' },
      { method: 'sparsevila', prefillSparsity: 0.5 },
    ]);
  });

  it('has verify of the server, unless the request says otherwise, and tells how many tokens were drafted', async () => {
    await start({ sparsity: { method: 'sparsevila', verify: 'dense' } });
    const told = await post({ model: MODEL, messages: HELLO, sparsity: 'snapkv' });
    await post({ model: MODEL, messages: HELLO, sparsity: { verify: 'none' } });
    await post({ model: MODEL, messages: HELLO });
    expect(engine.asked.map(({ sparsity }) => sparsity)).toEqual([
      { method: 'snapkv', verify: 'dense' },
      { method: 'sparsevila', verify: 'none' },
      { method: 'sparsevila', verify: 'dense' },
    ]);
    const { choices } = (await told.json()) as { choices: { sparsevila: object }[] };
    expect(choices[0]?.sparsevila).toMatchObject({ tokens: { drafted: 6, accepted: 5 } });
    expect(await (await fetch(`${server.url}/metrics`)).text()).toMatch(/draft_tokens_total{kind="accepted"} 10/);
    expect((await post({ model: MODEL, messages: HELLO, sparsity: { verify: 'sparse' } })).status).toBe(400);
    await expect(serve(engine, { port: 0, sparsity: { method: 'rekv', verify: 'dense' } })).rejects.toMatchObject({
      code: 'ERR_OPTION_INVALID',
    });
  });

  it('has the frames of a video', async () => {
    const frame = PNG.slice(PNG.indexOf(',') + 1);
    const content = [
      { type: 'video_url', video_url: { frames: [PNG, PNG], fps: 2 } },
      { type: 'input_video', input_video: { url: `data:video/jpeg;base64,${frame},${frame},${frame}` } },
      { type: 'video_url', video_url: { url: 'data:video/mp4;base64,AAAA', fps: 1, max_frames: 8 } },
      { type: 'text', text: 'What?' },
    ];
    expect((await post({ model: MODEL, messages: [{ role: 'user', content }] })).status).toBe(200);
    const bytes = Buffer.from(frame, 'base64');
    expect(engine.asked[0]?.messages[0]?.content).toEqual([
      { kind: 'video', video: { frames: [bytes, bytes], fps: 2 } },
      { kind: 'video', video: { frames: [bytes, bytes, bytes] } },
      { kind: 'video', video: { file: Buffer.alloc(3), fps: 1, maxFrames: 8 } },
      'What?',
    ]);
  });
});

describe('answers', () => {
  it('whole, with usage, and with what was measured', async () => {
    const { data, response, request_id } = await client()
      .chat.completions.create({ model: MODEL, messages: HELLO })
      .withResponse();
    expect(data).toMatchObject({
      ...{ object: 'chat.completion', model: MODEL, id: expect.stringMatching(/^chatcmpl-/) },
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'A cat.', refusal: null },
          finish_reason: 'stop',
          logprobs: null,
        },
      ],
      usage: { prompt_tokens: 10, completion_tokens: 3, total_tokens: 13, prompt_tokens_details: { cached_tokens: 4 } },
    });
    expect(data.choices[0]).toMatchObject({
      sparsevila: { tokens: { visual_seen: 0, generated: 3 }, ms: { total: 20 } },
    });
    expect([request_id, response.headers.get('x-request-id')]).toEqual([expect.stringMatching(/^req_/), request_id]);
  });

  it('streamed, with usage at the end only where it is wanted', async () => {
    const chunks = [];
    const options = { model: MODEL, messages: HELLO, stream: true as const, stream_options: { include_usage: true } };
    for await (const chunk of await client().chat.completions.create(options)) chunks.push(chunk);
    expect(chunks.map(({ choices }) => choices[0]?.delta)).toEqual([
      { role: 'assistant', content: '', refusal: null },
      { content: 'A' },
      { content: ' cat' },
      { content: '.' },
      {},
      undefined,
    ]);
    expect(chunks.map(({ usage }) => usage ?? null)).toEqual([
      null,
      null,
      null,
      null,
      null,
      expect.objectContaining({ total_tokens: 13 }),
    ]);
    expect(chunks.map(({ choices }) => choices[0]?.finish_reason ?? null)).toEqual([
      null,
      null,
      null,
      null,
      'stop',
      null,
    ]);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    const text = await (await post({ model: MODEL, messages: HELLO, stream: true })).text();
    expect(text).not.toContain('usage');
    expect(text.trimEnd().split('\n\n').at(-1)).toBe('data: [DONE]');
  });

  it('of several choices, streamed or not', async () => {
    script({ pieces: ({ seed = 0 }) => [`${seed}`, '!'] });
    const whole = await client().chat.completions.create({ model: MODEL, messages: HELLO, n: 3, seed: 5 });
    expect(whole.choices.map(({ message, index }) => [index, message.content])).toEqual([
      [0, '5!'],
      [1, '6!'],
      [2, '7!'],
    ]);
    expect(whole.usage).toMatchObject({ prompt_tokens: 10, completion_tokens: 6 });
    const texts = ['', ''];
    for await (const { choices } of await client().chat.completions.create({
      model: MODEL,
      messages: HELLO,
      n: 2,
      seed: 5,
      stream: true,
    }))
      for (const { index, delta } of choices) texts[index] += delta.content ?? '';
    expect(texts).toEqual(['5!', '6!']);
  });

  it('with log-probabilities', async () => {
    const options = { model: MODEL, messages: HELLO, logprobs: true, top_logprobs: 2 };
    const { choices } = await client().chat.completions.create(options);
    const shown = { token: 'A', logprob: -0.5, bytes: [65] };
    expect(choices[0]?.logprobs?.content).toHaveLength(3);
    expect(choices[0]?.logprobs?.content?.[0]).toEqual({
      ...shown,
      top_logprobs: [
        { token: 't0', logprob: -0.5, bytes: [116, 48] },
        { token: 't1', logprob: -9999, bytes: [116, 49] },
      ],
    });
    const tokens: string[] = [];
    for await (const chunk of await client().chat.completions.create({ ...options, stream: true }))
      for (const one of chunk.choices[0]?.logprobs?.content ?? []) tokens.push(one.token);
    expect(tokens).toEqual(['A', ' cat', '.']);
  });

  it('that a limit cut off', async () => {
    script({ finish: 'length' });
    expect((await client().chat.completions.create({ model: MODEL, messages: HELLO })).choices[0]?.finish_reason).toBe(
      'length',
    );
  });
});

describe('errors', () => {
  const refusal = async (body: object, path?: string) => {
    const response = await post({ model: MODEL, messages: HELLO, ...body }, path);
    const { error } = (await response.json()) as {
      error: { message: string; type: string; param: string; code: string };
    };
    return { status: response.status, retry: response.headers.get('x-should-retry'), ...error };
  };
  const user = (...content: object[]) => ({ messages: [{ role: 'user', content }] });

  it.each(
    (
      [
        [{ temprature: 1 }, 'temprature', 'unknown_parameter'],
        [{ temperature: 3 }, 'temperature', 'invalid_value'],
        [{ temperature: '1' }, 'temperature', 'invalid_value'],
        [{ messages: undefined }, 'messages', 'missing_required_parameter'],
        [{ messages: [] }, 'messages', 'invalid_value'],
        [{ messages: [{ role: 'user' }] }, 'messages[0].content', 'missing_required_parameter'],
        [{ messages: [{ role: 'king', content: 'x' }] }, 'messages[0].role', 'invalid_value'],
        [{ messages: [{ role: 'assistant', content: 'x' }] }, 'messages', 'invalid_value'],
        [
          { messages: [...HELLO, { role: 'tool', content: 'x', tool_call_id: '1' }] },
          'messages[1].role',
          'unsupported_parameter',
        ],
        [{ tools: [{ type: 'function' }] }, 'tools', 'unsupported_parameter'],
        [{ modalities: ['text', 'audio'] }, 'modalities', 'unsupported_parameter'],
        [{ frequency_penalty: 1 }, 'frequency_penalty', 'unsupported_parameter'],
        [{ n: 1000 }, 'n', 'invalid_value'],
        [{ stop: Array.from({ length: 10_000 }, (_, i) => `${i}`) }, 'stop', 'invalid_value'],
        [{ stop: [''] }, 'stop', 'invalid_value'],
        [{ top_logprobs: 2 }, 'top_logprobs', 'invalid_value'],
        [{ stream_options: {} }, 'stream_options', 'invalid_value'],
        [{ logit_bias: { cat: 1 } }, 'logit_bias', 'invalid_value'],
        [{ response_format: { type: 'xml' } }, 'response_format.type', 'invalid_value'],
        [{ response_format: { type: 'json_schema' } }, 'response_format.schema', 'missing_required_parameter'],
        [{ sparsity: 'sparsevilla' }, 'sparsity', 'invalid_value'],
        [{ sparsity: { ratio: 1 } }, 'sparsity.ratio', 'unknown_parameter'],
        [user({ type: 'input_audio', input_audio: {} }), 'messages[0].content[0].type', 'unsupported_parameter'],
        [
          user({ type: 'image_url', image_url: {} }),
          'messages[0].content[0].image_url.url',
          'missing_required_parameter',
        ],
        [
          user({ type: 'image_url', image_url: { url: '/etc/passwd' } }),
          'messages[0].content[0].image_url.url',
          'invalid_image_url',
        ],
        [
          user({ type: 'image_url', image_url: { url: 'file:///etc/passwd' } }),
          'messages[0].content[0].image_url.url',
          'invalid_image_url',
        ],
        [
          user({ type: 'image_url', image_url: { url: 'http://169.254.169.254/' } }),
          'messages[0].content[0].image_url.url',
          'url_not_allowed',
        ],
        [
          user({ type: 'image_url', image_url: { url: 'data:image/png;base64,?' } }),
          'messages[0].content[0].image_url.url',
          'ERR_IMAGE_INVALID',
        ],
        [
          user(...Array.from({ length: 40 }, () => ({ type: 'image_url', image_url: { url: PNG } }))),
          'messages[0].content[32]',
          'too_many_pictures',
        ],
      ] as readonly (readonly [object, string, string])[]
    ).map(([body, param, code], i) => [i, param, code, body] as const),
  )('400, case %i: %s: %s', async (_i, param, code, body) => {
    expect(await refusal(body)).toMatchObject({
      status: 400,
      type: 'invalid_request_error',
      param,
      code,
      retry: 'false',
    });
    expect(engine.asked).toEqual([]);
  });

  it('a misspelled field comes with the likely name', async () => {
    expect((await refusal({ temprature: 1 })).message).toContain("Did you mean 'temperature'?");
  });

  it('empty forms of what is not supported are accepted', async () => {
    const { status } = await post({
      ...{ model: MODEL, messages: HELLO, tools: [], tool_choice: 'none', frequency_penalty: 0, modalities: ['text'] },
      ...{ response_format: { type: 'text' }, metadata: {}, store: false, temperature: null, stop: null },
    });
    expect(status).toBe(200);
  });

  it('another model, another path and another method are not found', async () => {
    expect(await refusal({ model: 'gpt-9' })).toMatchObject({ status: 404, code: 'model_not_found' });
    expect(await refusal({}, '/v1/completions')).toMatchObject({ status: 404, code: 'unknown_url' });
    await expect(client().chat.completions.create({ model: 'gpt-9', messages: HELLO })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
    await expect(client().models.retrieve('gpt-9')).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  it.each([
    ['{"a":', 400, 'invalid_json'],
    ['', 400, 'invalid_request'],
    ['[]', 400, 'invalid_value'],
    ['"x"', 400, 'invalid_value'],
  ])('the body %j', async (body, status, code) => {
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([
      status,
      code,
    ]);
  });

  it.each<[SparseVilaError['code'], number, string, string | null]>([
    ['ERR_IMAGE_CORRUPT', 400, 'false', 'messages'],
    ['ERR_QUESTION', 400, 'false', 'messages'],
    ['ERR_CONTEXT_OVERFLOW', 400, 'false', 'messages'],
    ['ERR_OUT_OF_MEMORY', 503, 'true', null],
    ['ERR_INTERNAL', 500, 'false', null],
  ])('of the engine: %s', async (code, status, retry, param) => {
    script({ error: { thrown: new SparseVilaError(code, 'a secret path'), after: 0 } });
    for (const stream of [false, true]) {
      const found = await refusal({ stream });
      expect(found).toMatchObject({ status, retry, param });
      expect(found.message.includes('a secret path')).toBe(status !== 500);
    }
    expect(logged).toHaveLength(status === 500 ? 2 : 0);
  });

  it('of the engine: a damaged picture, a schema', async () => {
    const picture = { type: 'image_url', image_url: { url: PNG } };
    const [path, schema] = ['messages[0].content[1].image_url.url', { type: 'json_schema', schema: { type: 'x' } }];
    script({ error: { thrown: new SparseVilaError('ERR_IMAGE_CORRUPT', 'Damaged.'), after: 0 } });
    expect(await refusal(user({ type: 'text', text: 'x' }, picture))).toMatchObject({ status: 400, param: path });
    expect(await refusal(user(picture, picture))).toMatchObject({ status: 400, param: 'messages' });
    const response = await post(
      { model: MODEL, input: [{ role: 'user', content: [{ type: 'input_image', image_url: PNG }] }] },
      '/v1/responses',
    );
    expect(await response.json()).toMatchObject({ error: { param: 'input[0].content[0].image_url' } });
    script({ error: { thrown: new SparseVilaError('ERR_OPTION_INVALID', 'format: at #, expected …'), after: 0 } });
    expect(await refusal({ response_format: schema })).toMatchObject({ status: 400, param: 'response_format' });
  });

  it('within a stream end it with an error and without [DONE]', async () => {
    script({ error: { thrown: new SparseVilaError('ERR_OUT_OF_MEMORY', 'No memory'), after: 2 } });
    const text = await (await post({ model: MODEL, messages: HELLO, stream: true })).text();
    expect(text).not.toContain('[DONE]');
    const read = async () => {
      for await (const _ of await client().chat.completions.create({ model: MODEL, messages: HELLO, stream: true }));
    };
    await expect(read()).rejects.toThrow('No memory');
  });
});

describe('time', () => {
  it('a long prefill is bridged by comments', async () => {
    await start({ limits: { silenceMs: 20 } });
    script({ prefillMs: 90 });
    const text = await (await post({ model: MODEL, messages: HELLO, stream: true })).text();
    expect(text.startsWith(': waiting\n\n')).toBe(true);
    const whole: string[] = [];
    for await (const { choices } of await client().chat.completions.create({
      model: MODEL,
      messages: HELLO,
      stream: true,
    }))
      whole.push(choices[0]?.delta.content ?? '');
    expect(whole.join('')).toBe('A cat.');
  });

  it('an answer that takes too long is ended', async () => {
    await start({ limits: { answerMs: 40 } });
    script({ prefillMs: 100_000 });
    const response = await post({ model: MODEL, messages: HELLO });
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([504, 'false']);
    expect(engine.state).toMatchObject({ running: 0, aborted: 1 });
  });

  it.each([
    ['in the prefill', { prefillMs: 100_000 }],
    ['while it streams', { pieceMs: 100, pieces: () => Array.from({ length: 1000 }, () => 'x') }],
  ])('a client that leaves %s ends the work', async (_when, next) => {
    await start();
    script(next);
    const leaving = new AbortController();
    const asked = client().chat.completions.create(
      { model: MODEL, messages: HELLO, stream: true },
      { signal: leaving.signal },
    );
    await until(() => engine.state.running === 1);
    if ('pieces' in next) for await (const _ of await asked) break;
    leaving.abort();
    await asked.catch(() => undefined);
    await until(() => engine.state.running === 0 && server.held() === 0);
    expect(engine.state.aborted).toBe(1);
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
