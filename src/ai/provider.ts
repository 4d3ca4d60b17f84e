// A provider of the AI SDK: `generateText({ model: sparsevila('folder or name'), … })` runs the model in this process, in an engine that all calls share.
// Only types of @ai-sdk/provider are used, so that nothing of the SDK is needed to load this module.
// Source: @ai-sdk/provider 4 (specification v4).

import type { LanguageModelV4 } from '@ai-sdk/provider' with { 'resolution-mode': 'import' };
import { checkEngineOptions, openEngine } from '../engine/engine';
import type { Engine, EngineOptions } from '../engine/types';
import { checkValue, NAME } from '../options';
import { generated, streamed } from './answer';
import { requestOf } from './request';

/** The engines of a provider, and the models that they answer for. */
export interface SparseVilaProvider {
  /**
   * A model for the AI SDK: a checkpoint folder, or a model of the Hub by name. It is loaded by the first call, and shared by all calls.
   * @param options of its engine; models of one name with equal options share one
   * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`
   */
  (model: string, options?: EngineOptions): LanguageModelV4;
  languageModel(model: string, options?: EngineOptions): LanguageModelV4;
  /** Ends all engines and frees their models. A later call loads again. */
  close(): Promise<void>;
}

/**
 * A provider with options for all of its engines.
 * @throws SparseVilaError `ERR_OPTION_INVALID`, `ERR_OPTION_MISSING`
 * @example
 * const { text } = await generateText({ model: sparsevila(PACKAGED_MODEL), prompt: 'Hello' });
 */
export function createSparseVila(common?: EngineOptions): SparseVilaProvider {
  const engines = new Map<string, Promise<Engine>>();
  const engineOf = (name: string, options: EngineOptions): Promise<Engine> => {
    const key = JSON.stringify([name, Object.entries(options).sort()]);
    const opened = engines.get(key) ?? openEngine(name, options);
    engines.set(key, opened);
    // A model that could not be loaded is tried again by the next call.
    opened.catch(() => {
      if (engines.get(key) === opened) engines.delete(key);
    });
    return opened;
  };
  const shared = checkEngineOptions(common);
  const model = (name: string, options?: EngineOptions): LanguageModelV4 => {
    checkValue('sparsevila', 'model', name, NAME);
    const all = { ...shared, ...checkEngineOptions(options) };
    return {
      specificationVersion: 'v4',
      provider: 'sparsevila',
      modelId: name,
      // Pictures at http(s) URLs are fetched by the SDK.
      supportedUrls: {},
      async doGenerate(call) {
        const { request, warnings } = requestOf(call);
        const engine = await engineOf(name, all);
        return generated(engine.run(request, signalIn(call)), name, warnings);
      },
      async doStream(call) {
        const { request, warnings } = requestOf(call);
        const engine = await engineOf(name, all);
        return { stream: streamed(engine.run(request, signalIn(call)), name, warnings) };
      },
    };
  };
  const close = async (): Promise<void> => {
    const open = [...engines.values()];
    engines.clear();
    await Promise.all(open.map((engine) => engine.then((own) => own.close()).catch(() => undefined)));
  };
  return Object.assign((name: string, options?: EngineOptions) => model(name, options), {
    languageModel: model,
    close,
  });
}

const signalIn = ({ abortSignal }: { abortSignal?: AbortSignal | undefined }): { signal?: AbortSignal } =>
  abortSignal === undefined ? {} : { signal: abortSignal };

/** The provider with the package's defaults. */
export const sparsevila: SparseVilaProvider = createSparseVila();
