// `sparsevila serve`: an HTTP server with OpenAI's API for one model.

import type { ArgumentsCamelCase, CommandModule, InferredOptionTypes, Options } from 'yargs';
import type { EngineOptions } from '../engine/types';
import { progressReporter } from '../runtime/progress';
import type { ServerLimits, ServerOptions } from '../server/options';
import { aborted, SIGNALS } from './interrupt';
import { methodOf } from './method_options';
import { CONVERSATION_OPTIONS, type ConversationArguments, MODEL_NAME_OPTION, modelFolder } from './options';
import { print, printNote } from './style';
import { signalExit } from './usage';

const number = { type: 'number' } as const;
const text = { type: 'string' } as const;
const list = { ...text, array: true, nargs: 1 } as const;
const address = { group: 'Address:' } as const;
const access = { group: 'Access:' } as const;
const limits = { group: 'Limits:' } as const;

const { model, method, kv, weights, precision, template } = CONVERSATION_OPTIONS;

const SERVE_OPTIONS = {
  model: { ...model, defaultDescription: 'the packaged assets/tiny-nvila' },
  host: {
    ...text,
    ...address,
    describe: 'Address to listen at; 0.0.0.0 is every one',
    defaultDescription: '127.0.0.1',
  },
  port: { ...number, ...address, describe: 'Port to listen at; 0 lets the system choose', defaultDescription: '8000' },
  'model-name': { ...MODEL_NAME_OPTION['model-name'], ...address },
  page: { type: 'boolean', ...address, default: true, describe: 'Serve the chat page at /' },

  'api-key': {
    ...list,
    ...access,
    describe:
      'Key that clients have to send; may be given again. SPARSEVILA_API_KEY is one too, and is not visible to other users',
  },
  origin: {
    ...list,
    ...access,
    describe: 'Origin whose web pages may call the server, as https://example.com; * is every one',
  },
  'host-name': { ...list, ...access, describe: 'Further name under which a server at 127.0.0.1 may be addressed' },
  'allow-url': {
    ...list,
    ...access,
    describe: 'Host from which pictures may be fetched, as example.com, *.example.com, or * for every public one',
  },
  'allow-address': {
    ...list,
    ...access,
    describe: 'Private address or subnet that a fetch may connect to, as 10.1.0.0/16',
  },

  method,
  'prefill-sparsity': CONVERSATION_OPTIONS['prefill-sparsity'],
  'decode-sparsity': CONVERSATION_OPTIONS['decode-sparsity'],
  positions: CONVERSATION_OPTIONS.positions,
  verify: CONVERSATION_OPTIONS.verify,

  'max-running': { ...number, ...limits, describe: 'Requests that are answered at once', defaultDescription: '16' },
  'max-requests': {
    ...number,
    ...limits,
    describe: 'Requests that run or wait; further ones are answered 429',
    defaultDescription: '64',
  },
  'max-client-requests': {
    ...number,
    ...limits,
    describe: 'Requests of one API key (without keys, of one address) that run or wait; further ones are answered 429',
    defaultDescription: 'no limit',
  },
  'max-tokens': {
    ...number,
    ...limits,
    describe: 'Maximum number of answer tokens of a request',
    defaultDescription: '8192',
  },
  'max-pictures': { ...number, ...limits, describe: 'Pictures in one request', defaultDescription: '32' },
  'max-frames': { ...number, ...limits, describe: 'Video frames in one request', defaultDescription: '256' },
  'max-pixels': { ...CONVERSATION_OPTIONS['max-pixels'], ...limits },
  'max-body': { ...number, ...limits, describe: 'Megabytes of one request', defaultDescription: '32' },
  'max-seconds': { ...number, ...limits, describe: 'Seconds for one answer', defaultDescription: '600' },

  kv,
  weights,
  precision,
  template,
  'context-length': CONVERSATION_OPTIONS['context-length'],
} satisfies Record<string, Options>;

type ServeFlags = InferredOptionTypes<typeof SERVE_OPTIONS>;

export const serveCommand: CommandModule<object, ServeFlags> = {
  command: 'serve',
  describe: "Serve a model over HTTP with OpenAI's API, and a chat page",
  builder: (yargs) =>
    yargs
      .options(SERVE_OPTIONS)
      .epilogue(
        'SIGTERM and Ctrl-C let running answers finish; a second one ends them. docs/server.md describes the API, its limits and its metrics.',
      )
      .example('$0 serve assets/tiny-nvila', 'The packaged model at http://127.0.0.1:8000')
      .example(
        '$0 serve assets/tiny-nvila --port 9000 --method dense',
        'Without sparsity, unless a request asks for it',
      )
      .example(
        'SPARSEVILA_API_KEY=secret $0 serve assets/tiny-nvila --host 0.0.0.0',
        'For other machines, which need the key',
      ),
  handler: async (args) => {
    await serveUntilStopped(args);
  },
};

async function serveUntilStopped(args: ArgumentsCamelCase<ServeFlags>): Promise<void> {
  const stop = stopSignal();
  try {
    const options = serverOptions(args);
    const { openEngine } = await import('../index.js');
    const { requireAddress, serve } = await import('../server/server.js');
    await requireAddress(options);
    const reporter = progressReporter();
    const folder = modelFolder(args);
    const onProgress: EngineOptions['onProgress'] = (progress) => {
      if (process.stderr.isTTY || progress.step.startsWith('download ')) reporter({ ...progress, unit: 'B' });
    };
    const engine = await openEngine(folder, { ...engineOptions(args), signal: stop.signal, onProgress }).finally(
      reporter.stop,
    );
    try {
      const server = await serve(engine, options);
      print(`${server.url}\n`);
      printNote(
        `Serving ${server.model}. The chat page is at ${server.url}/, the API at ${server.url}/v1. Ctrl-C stops.\n`,
      );
      if (!isSafe(options))
        printNote('Everyone who reaches this address can use the server: no API key is set.\n', 'yellow');
      await Promise.race([stop.received, aborted(engine.ended)]);
      if (!engine.ended.aborted)
        printNote(`Stopping; ${server.held()} requests are finished first. A second signal ends them.\n`);
      await server.close();
      engine.ended.throwIfAborted();
    } finally {
      await engine.close({ drain: true });
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = stop.exitCode();
  } finally {
    stop.forget();
  }
}

/** Whether the server is reached from this machine alone, or asks for a key. */
const isSafe = ({ host = '127.0.0.1', apiKeys = [] }: ServerOptions): boolean =>
  apiKeys.length > 0 || ['127.0.0.1', '::1', 'localhost'].includes(host);

/** The first SIGINT, SIGTERM or SIGHUP as a promise and as an aborted signal; the second one ends the process. */
function stopSignal() {
  const controller = new AbortController();
  let code = 0;
  let receive: () => void = () => undefined;
  const received = new Promise<void>((resolve) => {
    receive = resolve;
  });
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(signalExit(name));
    code = signalExit(name);
    controller.abort();
    receive();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    ...{ signal: controller.signal, received, exitCode: () => code },
    forget: () => {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}

/** Options of the server. @throws SparseVilaError `ERR_OPTION_INVALID` for an option that the method does not take */
function serverOptions(args: ArgumentsCamelCase<ServeFlags>): ServerOptions {
  const { options } = methodOf(args as unknown as ConversationArguments);
  const environment = process.env.SPARSEVILA_API_KEY;
  const apiKeys = [...(args.apiKey ?? []), ...(environment ? [environment] : [])];
  const {
    modelName: name,
    host,
    port,
    origin: origins,
    hostName: hostNames,
    allowUrl: urls,
    allowAddress: addresses,
    page,
  } = args;
  const chosen: Partial<Record<keyof ServerLimits, number | undefined>> = {
    ...{ requests: args.maxRequests, tokens: args.maxTokens, pictures: args.maxPictures, frames: args.maxFrames },
    clientRequests: args.maxClientRequests,
    bodyBytes: args.maxBody && Math.ceil(args.maxBody * 2 ** 20),
    answerMs: args.maxSeconds && Math.ceil(args.maxSeconds * 1000),
  };
  return {
    ...given({ name, host, port, origins, hostNames, urls, addresses, page }),
    apiKeys,
    sparsity: { method: args.method, ...options, ...given({ verify: args.verify }) },
    limits: given(chosen),
  } as ServerOptions;
}

function engineOptions(args: ArgumentsCamelCase<ServeFlags>): EngineOptions {
  const { kv, weights, precision, template, contextLength, maxPixels, maxRunning, maxRequests } = args;
  const waiting = maxRequests === undefined ? undefined : Math.max(0, maxRequests);
  return given({
    kv,
    weights,
    precision,
    template,
    contextLength,
    maxPixels,
    maxRunning,
    maxWaiting: waiting,
  }) as EngineOptions;
}

function given<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}
