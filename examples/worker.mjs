// An HTTP server whose model runs in a worker thread, so that the event loop stays free: node worker.mjs [PORT]
// Ask it: curl -G localhost:3000 --data-urlencode 'q=Where is the yellow 2?'
import { createServer } from 'node:http';
import { isMainThread, MessageChannel, parentPort, Worker } from 'node:worker_threads';
import { load, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } from 'sparsevila';

if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  const server = createServer((request, response) => {
    const question = new URL(request.url ?? '/', 'http://localhost').searchParams.get('q') ?? '';
    const { port1, port2 } = new MessageChannel();
    port1.on('message', ({ text, error }) => {
      if (error !== undefined && !response.headersSent) response.statusCode = 400;
      if (error !== undefined || text === undefined) response.end(error);
      else response.write(text);
      if (error !== undefined || text === undefined) port1.close();
    });
    worker.postMessage({ question, port: port2 }, [port2]);
  });
  worker.once('online', () => server.listen(Number(process.argv[2] ?? 3000), '127.0.0.1'));
  server.once('listening', () => console.log(`http://127.0.0.1:${/** @type {any} */ (server.address()).port}`));
} else {
  const model = await load(PACKAGED_MODEL, { imageCache: 64e6 });
  parentPort?.on('message', async ({ question, port }) => {
    const chat = model.session({ method: sparseVila() });
    try {
      for await (const text of chat.ask(question, { images: [PACKAGED_PICTURE] })) port.postMessage({ text });
      port.postMessage({});
    } catch (error) {
      port.postMessage({ error: String(error) });
    } finally {
      chat.dispose();
    }
  });
}
