// The provider of the AI SDK: calls become requests of the engine, and its events results. What the SDK itself does with it is in script.mjs.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PACKAGED_MODEL, PACKAGED_PICTURE } from '../../src';
import { sparsevila } from '../../src/ai/provider';
import { requestOf } from '../../src/ai/request';
import { ROOT } from '../cli/run';
import { errorOf } from '../image/fixtures';

afterAll(() => sparsevila.close());

type Call = Parameters<typeof requestOf>[0];
const image = readFileSync(PACKAGED_PICTURE);
const picture = { type: 'file' as const, mediaType: 'image/png', data: { type: 'data' as const, data: image } };
const text = (words: string) => ({ type: 'text' as const, text: words });
const WHERE = 'Where is the yellow 2?';
const prompt: Call['prompt'] = [{ role: 'user', content: [picture, text(WHERE)] }];

describe('a call', () => {
  it('becomes a request with every setting that the engine has', () => {
    const { request, warnings } = requestOf({
      prompt: [
        { role: 'system', content: 'Be brief.' },
        { role: 'system', content: 'Be kind.' },
        ...prompt,
        { role: 'assistant', content: [text('d5')] },
        { role: 'user', content: [text('And')] },
        { role: 'user', content: [text(' now?')] },
      ],
      ...{ maxOutputTokens: 7, temperature: 0.5, topK: 4, topP: 0.9, seed: 3, stopSequences: ['x'] },
      responseFormat: { type: 'json', schema: { type: 'object' } },
      providerOptions: { sparsevila: { sparsity: { method: 'fastv' }, logprobs: 2 } },
    });
    expect(warnings).toEqual([]);
    expect(request).toEqual({
      messages: [
        { role: 'system', content: ['Be brief.', '\n', 'Be kind.'] },
        { role: 'user', content: [{ kind: 'image', image }, WHERE] },
        { role: 'assistant', content: ['d5'] },
        { role: 'user', content: ['And', ' now?'] },
      ],
      ...{ maxTokens: 7, temperature: 0.5, topK: 4, topP: 0.9, seed: 3, stop: ['x'], logprobs: 2 },
      ...{ format: { type: 'schema', schema: { type: 'object' } }, sparsity: { method: 'fastv' } },
    });
  });

  it('warns of settings that do nothing here', () => {
    const { request, warnings } = requestOf({
      ...{
        prompt,
        topP: 0.9,
        presencePenalty: 1,
        frequencyPenalty: 1,
        reasoning: 'high',
        responseFormat: { type: 'json' },
      },
      tools: [{ type: 'function', name: 'f', inputSchema: {} }],
    });
    const features = warnings.map((warning) => (warning.type === 'unsupported' ? warning.feature : ''));
    expect(features).toEqual(['presencePenalty', 'frequencyPenalty', 'tools', 'reasoning', 'topP']);
    expect(request).toEqual({ messages: expect.any(Array), format: { type: 'json' } });
  });

  it('takes base64, data URLs and films', () => {
    const url = new URL(`data:image/png;base64,${image.toString('base64')}`);
    const content = [
      { ...picture, data: { type: 'data' as const, data: image.toString('base64') } },
      { ...picture, data: { type: 'url' as const, url } },
      { ...picture, mediaType: 'video/mp4' },
    ];
    const [message] = requestOf({ prompt: [{ role: 'user', content }] }).request.messages;
    expect(message?.content).toEqual([
      { kind: 'image', image },
      { kind: 'image', image: url.href },
      { kind: 'video', video: { file: image } },
    ]);
  });

  it.each([
    ['a file', [{ role: 'user', content: [{ ...picture, mediaType: 'application/pdf' }] }], {}, 'application/pdf'],
    ['a message of a tool', [{ role: 'tool', content: [] }], {}, 'tools'],
    ['an option', prompt, { sparsevila: { sparsty: 1 } }, 'sparsity'],
  ])('refuses %s that it cannot read', async (_, messages, providerOptions, message) => {
    const error = await errorOf(async () => requestOf({ prompt: messages, providerOptions } as unknown as Call));
    expect([error.code, error.message]).toEqual(['ERR_OPTION_INVALID', expect.stringContaining(message)]);
  });
});

describe('a model', () => {
  const model = sparsevila(PACKAGED_MODEL, { sparsity: { method: 'sparsevila' } });

  it('generates text with usage and metadata', async () => {
    const result = await model.doGenerate({ prompt, providerOptions: { sparsevila: { logprobs: 1 } } });
    expect(result.content).toEqual([{ type: 'text', text: 'd5' }]);
    expect(result.finishReason).toEqual({ unified: 'stop', raw: 'stop' });
    const { inputTokens, outputTokens } = result.usage;
    expect([inputTokens.total, outputTokens.total]).toEqual([expect.any(Number), 2]);
    expect((inputTokens.noCache ?? 0) + (inputTokens.cacheRead ?? 0)).toBe(inputTokens.total);
    expect(result.providerMetadata?.sparsevila).toMatchObject({
      visualSeen: 100,
      visualKept: 40,
      logprobs: [{ top: [{}] }, {}],
    });
    expect((await model.doGenerate({ prompt, maxOutputTokens: 1 })).finishReason.unified).toBe('length');
  });

  it('streams parts in the order of the specification', async () => {
    const { stream } = await model.doStream({ prompt, topK: 3 });
    const parts = [];
    for await (const part of stream) parts.push(part);
    expect(parts.map(({ type }) => type).filter((type) => type !== 'text-delta')).toEqual([
      'stream-start',
      'response-metadata',
      'text-start',
      'text-end',
      'finish',
    ]);
    expect(parts[0]).toMatchObject({ warnings: [{ type: 'unsupported', feature: 'topK' }] });
    expect(parts.map((part) => (part.type === 'text-delta' ? part.delta : '')).join('')).toBe('d5');
  });

  it('an error of the answer is a part of the stream, and the reason of a signal is thrown', async () => {
    const { stream } = await model.doStream({ prompt: [{ role: 'user', content: [text('')] }] });
    const parts = [];
    for await (const part of stream) parts.push(part);
    expect(parts.at(-1)).toMatchObject({ type: 'error', error: { code: 'ERR_QUESTION' } });
    const reason = new Error('stop');
    await expect(model.doGenerate({ prompt, abortSignal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('a model that cannot be loaded fails each call', async () => {
    const missing = sparsevila('no/such/folder/here');
    for (let i = 0; i < 2; i++)
      expect((await errorOf(async () => missing.doGenerate({ prompt }))).code).toBe('ERR_MODEL_MISSING');
  });
});

it('works through the functions of the AI SDK', async () => {
  const script = join(ROOT, 'spec/ai/script.mjs');
  const { stdout } = await promisify(execFile)(process.execPath, [script], { encoding: 'utf8' });
  const results = JSON.parse(stdout);
  if ('skipped' in results) {
    console.log(`skipped: ${results.skipped}. Run by hand: npx -y node@22 spec/ai/script.mjs`);
    expect(Number(process.versions.node.split('.')[0])).toBeLessThan(22);
    return;
  }
  expect(results).toEqual({
    text: 'd5',
    streamed: 'blue X, blue triangle',
    turns: '3',
    output: { cell: expect.stringMatching(/^[a-j]([1-9]|10)$/) },
    warnings: ['presencePenalty'],
    aborted: 'AbortError',
    left: true,
    refused: 'ERR_OPTION_INVALID',
  });
}, 60_000);
