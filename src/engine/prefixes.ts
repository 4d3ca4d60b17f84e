// The memory of an engine: beginnings of conversations, with their rows, that later requests begin with instead of prefilling them. A request
// has the bits that it has without the memory: only rows are kept that a prefill of the whole prompt would give, and the question is always
// prefilled, because methods look at its attention.

import { abortable } from '../abort';
import type { VisionLanguageModel } from '../models/model';
import type { KvType } from '../ops/kv_cache';
import type { Conversation, Item, KnownMedium } from '../session/conversation';
import type { TurnMemory } from '../session/prefill';
import { beginWith, copyRows, type Prefix, prefixOf } from '../session/prefix';
import type { RunPlace, TurnPrompt } from '../session/prompt';
import { restorable } from '../session/saved_points';
import type { SparsityMethod } from '../sparsity/method';
import { aheadOf } from './ahead';
import { lru } from './lru';
import { contentOf } from './pictures';

/** An id of text, or the content of a run with that of all media of its message, which are pruned together. */
type Mark = number | string;

interface Known {
  /** Of requests whose rows are equal for equal marks. */
  readonly kind: string;
  readonly marks: readonly Mark[];
  readonly prefix: Prefix;
}

/** The beginning of a request that is being prefilled. */
interface Flight {
  readonly kind: string;
  readonly marks: readonly Mark[];
  readonly landed: Promise<void>;
}

export interface Remembered {
  readonly conversation: Conversation;
  readonly method: SparsityMethod;
  /** Equal for requests whose methods are equal. */
  readonly methodKey: string;
  readonly kv: KvType;
  readonly signal: AbortSignal;
  /** Awaited before rows are copied or prefilled. */
  admit(prompt: TurnPrompt): Promise<void>;
}

export interface RememberedTurn extends TurnMemory {
  /** Called after the prefill. */
  prefilled(): void;
  /** Called after the turn, with whatever rows it left; takes the conversation's cache or frees it. */
  end(): void;
}

export interface Prefixes {
  readonly bytes: number;
  readonly size: number;
  evict(): number;
  turn(request: Remembered): RememberedTurn;
  clear(): void;
}

/** Fewer rows than these are not worth a copy. */
const LEAST = 16;
/** Rows of an answer for which there is room beside a copy, and of a question and its answer beside one that is made ahead. */
const [ANSWER_ROOM, AHEAD_ROOM] = [128, 192];
/** Most bytes of a copy that is made ahead: it takes about 25 ms, for which a request that comes meanwhile waits. */
const AHEAD_BYTES = 2 ** 26;

/** A memory of at most `budget` bytes. */
export function prefixes(model: VisionLanguageModel, budget: number): Prefixes {
  const known = lru<Known>(budget, ({ prefix }) => prefix.cache.dispose());
  const flights = new Set<Flight>();
  // Where all of a prompt attends to itself, its rows depend on the question, and none of them serves another one.
  const isWhole = model.decoder.config.bidirectional === 'prompt';
  let keys = 0;
  const ahead = aheadOf();
  let running = 0;

  const longest = (kind: string, marks: readonly Mark[]): { key: string; count: number } => {
    let best = { key: '', count: 0 };
    for (const [key, one] of known.entries()) {
      const count = one.kind === kind ? restorable(one.prefix, commonMarks(one.marks, marks)) : 0;
      if (count > best.count) best = { key, count };
    }
    return best;
  };
  const keep = (kind: string, marks: readonly Mark[], prefix: Prefix): void => {
    for (const [key, one] of [...known.entries()]) {
      // Whatever begins with the shorter one can begin with the longer one, unless states are needed that it has not saved.
      const count = one.marks.length;
      const isBeginning = one.kind === kind && commonMarks(one.marks, marks) === count;
      if (isBeginning && restorable(prefix, count) === count) known.delete(key);
    }
    if (known.bytes + prefix.cache.bytes + ahead.bytes > budget) ahead.drop();
    known.set(String(keys++), { kind, marks, prefix }, prefix.cache.bytes);
  };
  const fly = (kind: string, marks: readonly Mark[]): (() => void) => {
    let land = (): void => undefined;
    const landed = new Promise<void>((resolve) => {
      land = resolve;
    });
    const flight = { kind, marks, landed };
    flights.add(flight);
    return () => {
      flights.delete(flight);
      land();
    };
  };

  /** While nothing runs: copies a beginning, so that the next request about the same pictures does not wait for the copy. */
  const prepareNext = (kind: string, marks: readonly Mark[]): void => {
    const { key, count } = longest(kind, marks);
    const prefix = known.get(key)?.prefix;
    if (running > 0 || prefix === undefined || count < marks.length || ahead.has(kind, marks)) return;
    ahead.drop();
    if (prefix.cache.bytes > Math.min(AHEAD_BYTES, budget - known.bytes)) return;
    ahead.keep(kind, marks, () => copyRows(prefix, count, AHEAD_ROOM));
    if (known.bytes + ahead.bytes > budget) ahead.drop();
  };

  const turn: Prefixes['turn'] = ({ conversation, method, methodKey, kv, signal, admit }) => {
    const kind = `${methodKey} ${kv}`;
    let land = (): void => undefined;
    /** Items that need not be kept, since they are in memory; items after the prefill. */
    let taken = 0;
    let prompted = 0;
    let shared: readonly Mark[] = [];
    running++;
    const store = (wanted: number, moves: boolean): boolean => {
      const count = restorable(conversation, wanted);
      if (isWhole || budget === 0 || rowsOf(conversation.items, taken, count) < LEAST) return false;
      const marks = marksIn(conversation, method, conversation.items.slice(0, count));
      try {
        keep(kind, marks, prefixOf(model, conversation, count, moves));
        taken = count;
        return true;
      } catch {
        return false; // There is no memory for a copy, and the request needs none.
      }
    };
    return {
      async begin(prompt) {
        const items = prompt.opening.flatMap((part): readonly (number | RunPlace)[] =>
          'medium' in part ? [part] : part,
        );
        const marks = marksIn(conversation, method, isWhole ? [] : items.slice(0, sharedItems(method, items)));
        if (conversation.items.length > 0) return 0;
        await abortable(landings(flights, kind, marks, longest(kind, marks).count), signal);
        await admit(prompt);
        shared = marks;
        const { key, count } = longest(kind, marks);
        const prefix = known.get(key)?.prefix;
        if (prefix !== undefined && rowsOf(prefix.items, 0, count) >= LEAST) {
          const room = prompt.question.length + ANSWER_ROOM;
          const cache = ahead.take(kind, marks.slice(0, count)) ?? copyRows(prefix, count, room);
          beginWith(model, conversation, prefix, count, cache);
          taken = count;
        }
        if (marks.length > taken) land = fly(kind, marks);
        return taken;
      },
      opened() {
        store(sharedItems(method, conversation.items), false);
        land();
      },
      prefilled: () => {
        prompted = conversation.items.length;
      },
      end() {
        land();
        const count = endItems(conversation, method, prompted);
        if (count <= taken || !store(count, true)) conversation.cache.dispose();
        running--;
        // After the end of the answer was sent.
        if (shared.length > 0) setImmediate(prepareNext, kind, shared);
      },
    };
  };
  return {
    get bytes() {
      return known.bytes + ahead.bytes;
    },
    get size() {
      return known.size;
    },
    evict: () => ahead.drop() || known.evict(),
    turn,
    clear: () => {
      known.clear();
      ahead.drop();
    },
  };
}

function commonMarks(a: readonly Mark[], b: readonly Mark[]): number {
  let count = 0;
  while (count < a.length && count < b.length && a[count] === b[count]) count++;
  return count;
}

function marksIn({ media }: Conversation, method: SparsityMethod, items: readonly (number | RunPlace)[]): Mark[] {
  return items.map((item) => {
    if (typeof item === 'number') return item;
    const { medium, run } = item;
    const own = media[medium] as KnownMedium;
    const together = method.prune === undefined ? [own] : media.filter(({ first }) => first === own.first);
    return [medium, run, ...together.map(({ prepared }) => contentOf(prepared))].join(' ');
  });
}

/** The number of items of an opening whose rows do not depend on what follows: a method may look at the question before it prunes or drops. */
function sharedItems({ prune, drop, bound }: SparsityMethod, items: readonly (number | RunPlace)[]): number {
  const run = items.findIndex((item) => typeof item !== 'number');
  const isShared = drop === undefined && bound === undefined && prune?.question !== true;
  return isShared || run < 0 ? items.length : run;
}

/** The number of items of a finished turn that a prefill of their ids would give: the answer only if it attended all rows. */
function endItems(
  { items, places }: Conversation,
  { prune, drop, bound, retrieve }: SparsityMethod,
  prompted: number,
): number {
  if (places.length === 0) return items.length;
  // A question over chosen frames has rows of its own.
  const isOwn = retrieve?.permanent === true || retrieve?.frames !== undefined;
  if (drop !== undefined || bound !== undefined || prune?.question === true || isOwn) return 0;
  return retrieve === undefined ? items.length : Math.min(prompted, items.length);
}

/** The number of rows of the items from .. to - 1 before the first layer. */
function rowsOf(items: readonly Item[], from: number, to: number): number {
  return items
    .slice(from, to)
    .reduce<number>((sum, item) => sum + (typeof item === 'number' ? 1 : item.kept + item.around), 0);
}

/** Waits for the requests that are prefilling a picture with which a request begins, beyond the `known` marks. */
async function landings(
  flights: ReadonlySet<Flight>,
  kind: string,
  marks: readonly Mark[],
  known: number,
): Promise<void> {
  const shared = [...flights].filter((flight) => {
    const common = flight.kind === kind ? commonMarks(flight.marks, marks) : 0;
    return marks.slice(known, common).some((mark) => typeof mark === 'string');
  });
  await Promise.all(shared.map(({ landed }) => landed));
}
