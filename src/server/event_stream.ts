// Server-sent events (WHATWG HTML, section 9.2). The status line is sent with the first event, so that an error before it has a status of its
// own; or after some silence, because clients give up on headers that do not come. Comments keep a silent connection open.

import type { FastifyReply } from 'fastify';
import type { RequestError } from './request_error';

export interface EventStream {
  /** Sends an event, and waits until the client has read earlier ones. Does nothing after the client has left. */
  send(data: object, event?: string): Promise<void>;
  /** Ends the stream; `last` is sent as data before that. */
  end(last?: string): void;
  /** Ends the stream with an error; returns false if nothing was sent yet, so that the error can be the response. */
  fail(error: RequestError, event?: string): boolean;
}

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // Of nginx: do not collect the response.
  'x-accel-buffering': 'no',
};

export function eventStream(reply: FastifyReply, silenceMs: number): EventStream {
  const { raw } = reply;
  let isOpen = false;
  let timer: NodeJS.Timeout | undefined;
  const open = (): void => {
    if (isOpen) return;
    isOpen = true;
    reply.hijack();
    raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), ...HEADERS });
    raw.flushHeaders();
  };
  const wait = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      open();
      if (raw.destroyed) return;
      raw.write(': waiting\n\n');
      wait();
    }, silenceMs);
  };
  const stop = (): void => clearTimeout(timer);
  raw.once('close', stop);
  wait();
  /** Of all events that wait for the client. */
  let drained: Promise<void> | undefined;
  const drain = (): Promise<void> => {
    drained ??= new Promise<void>((resolve) => {
      const go = (): void => {
        raw.off('drain', go).off('close', go);
        drained = undefined;
        resolve();
      };
      raw.on('drain', go).on('close', go);
    });
    return drained;
  };
  const write = (text: string): boolean => {
    open();
    return raw.destroyed || raw.write(text);
  };
  return {
    async send(data, event) {
      wait();
      const name = event === undefined ? '' : `event: ${event}\n`;
      if (write(`${name}data: ${JSON.stringify(data)}\n\n`)) return;
      await drain();
    },
    end(last) {
      stop();
      if (last !== undefined) write(`data: ${last}\n\n`);
      raw.end();
    },
    fail(error, event) {
      stop();
      if (!isOpen) return false;
      write(`${event === undefined ? '' : `event: ${event}\n`}data: ${JSON.stringify(error.body)}\n\n`);
      raw.end();
      return true;
    },
  };
}
