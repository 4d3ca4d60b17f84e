// Metrics of a server for Prometheus, in a registry of their own. Names follow vLLM's, with this package's prefix.

import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Engine } from '../engine/types';
import type { EndEvent } from './answers';

export interface ServerMetrics {
  readonly contentType: string;
  /** The metrics in Prometheus' text format. */
  text(): Promise<string>;
  request(route: string, status: number, seconds: number): void;
  answered(end: EndEvent): void;
  /** The mean duration of the latest answers in seconds; 1 before the first. */
  readonly answerSeconds: () => number;
}

const SECONDS = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const TOKEN_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
/** Weight of the latest answer in the mean duration. */
const LATEST = 0.2;

/** @param held returns how many requests the server holds */
export function serverMetrics(engine: Engine, held: () => number): ServerMetrics {
  const registry = new Registry();
  const registers = [registry];
  const prefix = 'sparsevila_';
  const requests = new Counter({
    ...{ name: `${prefix}http_requests_total`, help: 'Requests by route and status', registers },
    labelNames: ['route', 'status'],
  });
  const histogram = (name: string, help: string, buckets: number[]): Histogram =>
    new Histogram({ name: prefix + name, help, buckets, registers });
  const duration = histogram('e2e_request_latency_seconds', 'Time from request to the end of its answer', SECONDS);
  const first = histogram('time_to_first_token_seconds', 'Time to the first text of an answer', SECONDS);
  const queued = histogram('request_queue_time_seconds', 'Time before an answer is begun', SECONDS);
  const perToken = histogram('time_per_output_token_seconds', 'Time per decoded token', TOKEN_SECONDS);
  const tokens = new Counter({
    ...{ name: `${prefix}tokens_total`, help: 'Tokens: prompt, of these cached, and generated', registers },
    labelNames: ['kind'],
  });
  const visual = new Counter({
    ...{ name: `${prefix}visual_tokens_total`, help: 'Visual tokens seen, kept and retrieved', registers },
    labelNames: ['stage'],
  });
  const drafts = new Counter({
    ...{ name: `${prefix}draft_tokens_total`, help: 'Tokens drafted for verified answers, and accepted', registers },
    labelNames: ['kind'],
  });
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      ...{ name: prefix + name, help, registers },
      collect() {
        this.set(read());
      },
    });
  gauge('requests_held', 'Requests that the server holds', held);
  gauge('num_requests_running', 'Requests that the engine answers', () => engine.stats().running);
  gauge('num_requests_waiting', 'Requests that wait for the engine', () => engine.stats().waiting);
  gauge('kv_cache_bytes', 'Bytes of KV caches of running requests', () => engine.stats().kvBytes);
  gauge('prefix_cache_bytes', 'Bytes of conversations in memory', () => engine.stats().cachedBytes);
  gauge('prefix_cache_conversations', 'Conversations in memory', () => engine.stats().cachedPrefixes);
  gauge('picture_cache_pictures', 'Pictures in memory', () => engine.stats().cachedPictures);
  gauge('process_resident_memory_bytes', 'Resident memory of the process', () => process.memoryUsage.rss());
  let mean = 1;
  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    request(route, status, seconds) {
      requests.inc({ route, status: String(status) });
      if (route.startsWith('/v1/')) duration.observe(seconds);
    },
    answered({ usage, ms }) {
      first.observe(ms.first / 1000);
      queued.observe(ms.queue / 1000);
      if (usage.generated > 1) perToken.observe((ms.total - ms.first) / 1000 / (usage.generated - 1));
      mean += LATEST * (ms.total / 1000 - mean);
      tokens.inc({ kind: 'prompt' }, usage.prompt);
      tokens.inc({ kind: 'cached' }, usage.cached);
      tokens.inc({ kind: 'generated' }, usage.generated);
      visual.inc({ stage: 'seen' }, usage.visualSeen);
      visual.inc({ stage: 'kept' }, usage.visualKept);
      visual.inc({ stage: 'retrieved' }, usage.visualRetrieved);
      drafts.inc({ kind: 'drafted' }, usage.drafted);
      drafts.inc({ kind: 'accepted' }, usage.accepted);
    },
    answerSeconds: () => mean,
  };
}
