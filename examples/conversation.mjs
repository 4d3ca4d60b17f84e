// A streaming conversation about a picture: node conversation.mjs [CHECKPOINT [PICTURE]]
import { load, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } from 'sparsevila';

const [checkpoint = PACKAGED_MODEL, picture = PACKAGED_PICTURE] = process.argv.slice(2);
const model = await load(checkpoint);
const chat = model.session({ method: sparseVila({ prefillSparsity: 0.6, decodeSparsity: 0.75 }) });

// Text arrives as it is decoded. Leaving the loop early would end the answer and keep the text so far.
const first = chat.ask('Where is the yellow 2?', { images: [picture] });
for await (const text of first) process.stdout.write(text);
const { tokens } = first.stats ?? {};
console.log(`\n  attended ${tokens?.visualRetrieved} of ${tokens?.visualSeen} visual tokens`);

// Later turns are about the same picture. Each retrieves the visual tokens that its own question needs.
const mark = chat.mark();
console.log(await chat.ask('Read row 7.', { maxTokens: 32, signal: AbortSignal.timeout(60_000) }));

// Forget that turn, and ask something else in its place.
chat.rewind(mark);
console.log(await chat.ask('How many orange objects are there?'));

chat.dispose();
model.dispose();
