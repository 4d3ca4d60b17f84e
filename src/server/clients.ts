// The requests that each client holds: those of an API key or, where there are no keys, of an address.

import { isIP } from 'node:net';

export interface ClientRequests {
  /** Counts a request of a client; returns what ends it, or undefined if the client holds as many as it may. */
  enter(client: string): (() => void) | undefined;
}

/** @param most requests of one client that run or wait */
export function clientRequests(most: number): ClientRequests {
  const held = new Map<string, number>();
  return {
    enter(client) {
      const before = held.get(client) ?? 0;
      if (before >= most) return undefined;
      held.set(client, before + 1);
      return () => {
        const left = (held.get(client) ?? 1) - 1;
        if (left === 0) held.delete(client);
        else held.set(client, left);
      };
    },
  };
}

/** An address as a client. Of IPv6 the first 64 bits, because a network has all addresses with them; mapped ones are IPv4. */
export function clientOf(address: string): string {
  const [plain = ''] = address.split('%');
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain);
  if (mapped !== null || isIP(plain) !== 6) return mapped?.[1] ?? plain;
  const [left = '', right] = plain.split('::');
  const [first, last] = [left, right ?? ''].map((groups) => (groups === '' ? [] : groups.split(':'))) as [
    string[],
    string[],
  ];
  const zeros = right === undefined ? 0 : 8 - first.length - last.length;
  return [...first, ...new Array<string>(Math.max(0, zeros)).fill('0'), ...last].slice(0, 4).join(':');
}
