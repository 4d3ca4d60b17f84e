// A handler of Node's own HTTP server over an engine, which answers many requests at once: node http.mjs [PORT]
// Ask it: curl -F picture=@scene.png 'localhost:3000/?q=Where+is+the+yellow+2?' For an OpenAI-compatible server: npx sparsevila serve
import { createServer } from 'node:http';
import { openEngine, PACKAGED_MODEL, SparseVilaError } from 'sparsevila';

const engine = await openEngine(PACKAGED_MODEL, { sparsity: { method: 'sparsevila' } });

/** @type {import('node:http').RequestListener} */
async function handle(request, response) {
  const left = new AbortController();
  response.once('close', () => left.abort(new Error('The client left.')));
  try {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const type = request.headers['content-type'] ?? '';
    // A request of fetch reads forms; a picture may be sent as one, or as the body.
    const body = new Response(/** @type {any} */ (request), { headers: { 'content-type': type } });
    const picture = type.startsWith('multipart/') ? (await body.formData()).get('picture') : await body.blob();
    if (!(picture instanceof Blob)) throw new SparseVilaError('ERR_IMAGE_INVALID', 'Expected a form with a picture.');
    const image = Buffer.from(await picture.arrayBuffer());
    const content = [{ kind: /** @type {const} */ ('image'), image }, url.searchParams.get('q') ?? ''];
    const request_ = { messages: [{ role: /** @type {const} */ ('user'), content }] };
    for await (const event of engine.run(request_, { signal: left.signal }))
      if (event.type === 'text') response.write(event.text);
    response.end();
  } catch (error) {
    if (!response.headersSent) response.statusCode = error instanceof SparseVilaError ? 400 : 500;
    response.end(String(error));
  }
}

const server = createServer(handle).listen(Number(process.argv[2] ?? 3000), '127.0.0.1');
server.once('listening', () => console.log(`http://127.0.0.1:${/** @type {any} */ (server.address()).port}`));
process.once('SIGTERM', () => server.close(() => engine.close({ drain: true })));
