// A conversation by the AI SDK, which is an ES module: node ai_sdk.mjs URL '{ model, text, pictures, second, apiKey }', prints the result as JSON.
import { readFileSync } from 'node:fs';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';

const [url, text] = process.argv.slice(2);
const { model: name, question, second, pictures, apiKey } = JSON.parse(text);
const provider = createOpenAICompatible({ name: 'sparsevila', baseURL: `${url}/v1`, apiKey, includeUsage: true });
const model = provider(name);
const files = pictures.map((path) => ({ type: 'file', data: readFileSync(path), mediaType: 'image/png' }));
const messages = [{ role: 'user', content: [...files, { type: 'text', text: question }] }];
const system = 'Be brief.';

const one = await generateText({ model, system, messages });
const next = [...messages, { role: 'assistant', content: one.text }, { role: 'user', content: second }];
const two = streamText({ model, system, messages: next });
const streamed = await two.text;
const sparsity = { method: 'sparsevila', prefill: 0.9 };
const three = await generateText({ model, system, messages, providerOptions: { sparsevila: { sparsity } } });
const wrong = await generateText({ model: provider('another'), system, messages, maxRetries: 0 }).catch(
  (error) => error,
);
console.log(
  JSON.stringify({
    texts: [one.text, streamed],
    usage: [one.usage, await two.usage, three.usage],
    wrong: { status: wrong.statusCode, message: wrong.message },
  }),
);
