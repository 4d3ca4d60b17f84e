// Questions about a film: node film.mjs [CHECKPOINT [FILM]]. Video files need ffmpeg in PATH; animated GIF and WebP do not.
import { load, PACKAGED_FILM, PACKAGED_FILM_MODEL, sparseVila } from 'sparsevila';

const [checkpoint = PACKAGED_FILM_MODEL, film = PACKAGED_FILM] = process.argv.slice(2);
const model = await load(checkpoint);
const method = sparseVila({ prefillSparsity: 0.6, decodeSparsity: 0.75 });

// Segments, in seconds: one frame of each second.
for (const from of [0, 1, 2]) {
  const chat = model.session({ method });
  const answer = await chat.ask('Read row 7.', { videos: [{ file: film, from, to: from + 1, maxFrames: 1 }] });
  console.log(`second ${from}: ${answer}`);
  chat.dispose();
}

// The whole film: as many frames as the model's files ask for, or at most maxFrames.
const chat = model.session({ method });
const answer = chat.ask('On which square is the yellow 2?', {
  videos: [
    {
      file: film,
      maxFrames: 3,
      onProgress: ({ done, total }) => console.log(`decoded ${done} of ${total} frames`),
    },
  ],
});
console.log(`whole film: ${await answer}`);
console.log(`attended ${answer.stats?.tokens.visualRetrieved} of ${answer.stats?.tokens.visualSeen} visual tokens`);

chat.dispose();
model.dispose();
