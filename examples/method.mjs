// A sparsity method of your own, compared with dense and SparseVILA: node method.mjs [CHECKPOINT [PICTURE]]
import { budget, dense, load, PACKAGED_MODEL, PACKAGED_PICTURE, perPlane, sparseVila, topK } from 'sparsevila';

/**
 * Keeps the tokens in the middle of the picture, and retrieves the half that is most relevant to the question.
 * @returns {import('sparsevila').SparsityMethod}
 */
const center = (share = 0.5) => ({
  name: 'center',
  // Once per turn with pictures, before the decoder: the indices to keep, ascending, of each picture, tile or frame.
  prune: {
    select: perPlane(({ tokens, grid: { h, w } }) => {
      const distance = (/** @type {number} */ i) => Math.hypot(Math.floor(i / w) - (h - 1) / 2, (i % w) - (w - 1) / 2);
      const scores = Float32Array.from({ length: tokens }, (_, i) => -distance(i));
      return topK(scores, budget(tokens, 1 - share));
    }),
  },
  // Once per turn and decoder layer: the kept rows that the answer attends, by the question's attention to them.
  retrieve: { select: (relevance) => topK(relevance, budget(relevance.length, 0.5)) },
});

const [checkpoint = PACKAGED_MODEL, picture = PACKAGED_PICTURE] = process.argv.slice(2);
const model = await load(checkpoint);
for (const method of [dense(), sparseVila(), center()]) {
  const chat = model.session({ method });
  const answer = chat.ask('Where is the yellow 2?', { images: [picture] });
  console.log(`${method.name}: ${await answer} (${answer.stats?.tokens.visualRetrieved} tokens attended)`);
  chat.dispose();
}
model.dispose();
