// Text as it is decoded: node stream.mjs
import { load, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } from 'sparsevila';

const model = await load(PACKAGED_MODEL);
const chat = model.session({ method: sparseVila() });
const answer = chat.ask('Where is the yellow 2?', { images: [PACKAGED_PICTURE] });
for await (const text of answer) process.stdout.write(text);
console.log();
model.dispose();
