// A KV cache of bounded size: rows that no view has asked for lately leave its tensors for a file on the host, and return when a view asks for them.
// Rows keep their numbers. The tensors hold the present rows in their order, so that attention has the bits that it has without the tier.

import { SparseVilaError } from '../errors';
import { appendKv, type KvType, readKv } from '../ops/kv_cache';
import { float32, floats } from '../ops/run';
import { attendsAll, type DecoderConfig } from './config';
import { type HostRows, hostRows } from './host_rows';
import { type AttendedRows, type KvCache, type LayerRange, overflow, rowBytes } from './kv_cache';

/** The rows of a layer. */
interface TieredLayer {
  /** Numbers of the rows that its tensor holds, in their order. */
  present: number[];
  /** By the number of a row: its slot on the host, -1 before it was written; and when a view last asked for it. */
  readonly slots: number[];
  readonly used: number[];
}

/** Rows that are reserved for what follows a view that says nothing else. */
const ROOM = 256;
/** Share of the budget that stays after rows have left: each time, the rows behind them move. */
const LEFT = 0.75;

/**
 * A cache over `inner`, which it owns, whose layers that attend all rows hold `budget` bytes in all, or as many as one view asks for.
 * @param folder of the file; default the system's for temporary files
 */
export function tieredCache(
  inner: KvCache,
  config: DecoderConfig,
  { type, budget, folder }: { readonly type: KvType; readonly budget: number; readonly folder?: string | undefined },
): KvCache {
  const most = Math.max(1, Math.floor(budget / rowBytes(config, type)));
  const width = 2 * config.kvHeads * config.headDim;
  const layers = inner.lengths.map((): TieredLayer => ({ present: [], slots: [], used: [] }));
  return cacheOf({
    inner,
    config,
    most,
    lengths: inner.lengths.map(() => 0),
    layers,
    host: hostRows(width, type, folder),
    clock: 0,
  });
}

interface Tier {
  readonly inner: KvCache;
  readonly config: DecoderConfig;
  /** Most rows of a layer, unless a view asks for more. */
  readonly most: number;
  readonly lengths: number[];
  readonly layers: readonly TieredLayer[];
  readonly host: HostRows;
  clock: number;
}

function cacheOf(tier: Tier): KvCache {
  const { inner, lengths, layers, config, most, host } = tier;
  const all: LayerRange = { from: 0, to: lengths.length };
  const range = (layer: number): LayerRange => ({ from: layer, to: layer + 1 });
  /** Numbers of present rows before the rows at these lengths. */
  const presentOf = (to: readonly number[]): number[] =>
    layers.map(({ present }, layer) => indexIn(present, Math.min(to[layer] ?? 0, lengths[layer] as number)));
  const truncate = (to: readonly number[], point?: number): void => {
    inner.truncate(presentOf(to), point);
    for (const [layer, { present, slots, used }] of layers.entries()) {
      const rows = Math.min(to[layer] ?? 0, lengths[layer] as number);
      lengths[layer] = rows;
      present.length = inner.lengths[layer] as number;
      slots.length = Math.min(slots.length, rows);
      used.length = Math.min(used.length, rows);
    }
    host.truncate(layers.reduce((end, { slots }) => slots.reduce((last, slot) => Math.max(last, slot + 1), end), 0));
  };
  let isDisposed = false;
  return {
    ...{ lengths, limit: inner.limit, held: inner.lengths, isTiered: true, hasStates: inner.hasStates },
    get bytes() {
      return inner.bytes;
    },
    get points() {
      return inner.points;
    },
    tensor: inner.tensor,
    reserve(rows, { from, to } = all) {
      for (let layer = from; layer < to; layer++) {
        const needed = (lengths[layer] as number) + rows;
        if (needed > inner.limit) throw overflow(needed, inner.limit);
        // Where it is empty, its final size is reserved: growing would take half as much again.
        const isFirst = inner.lengths[layer] === 0 && attendsAll(config, layer);
        inner.reserve(isFirst ? Math.min(Math.max(rows, most), inner.limit) : rows, range(layer));
      }
    },
    extend(rows, { from, to } = all) {
      inner.extend(rows, { from, to });
      const added = typeof rows === 'number' ? rows : rows.length;
      for (let layer = from; layer < to; layer++) {
        for (let i = 0; i < added; i++) layers[layer]?.present.push((lengths[layer] as number) + i);
        lengths[layer] = (lengths[layer] as number) + added;
      }
    },
    positions: inner.positions,
    truncate,
    ...{ save: inner.save, stateAt: inner.stateAt, putState: inner.putState },
    forget: inner.forget,
    keep() {
      throw new SparseVilaError('ERR_INTERNAL', 'Expected no rows to be removed from a cache with a host tier.');
    },
    at(layer, row) {
      const { present } = layers[layer] as TieredLayer;
      const at = indexIn(present, row);
      if (present[at] === row) return at;
      throw new SparseVilaError(
        'ERR_INTERNAL',
        `Expected row ${row} of layer ${layer} in the cache, but it is on the host.`,
      );
    },
    locate(layer, view, room = ROOM) {
      const own = layers[layer] as TieredLayer;
      const now = ++tier.clock;
      for (const row of view.rows) own.used[row] = now;
      fetchRows(tier, layer, view.rows);
      const over = own.present.length + room - most;
      if (over > 0) evictRows(tier, layer, view, over + Math.floor((1 - LEFT) * most));
      let at = 0;
      const rows = view.rows.map((row) => {
        while (own.present[at] !== row) at++;
        return at;
      });
      return { rows, tail: indexIn(own.present, view.tail) };
    },
    fork(to = lengths, point) {
      const copy = inner.fork(presentOf(to), point);
      const own = lengths.map((length, layer) => Math.min(length, to[layer] ?? 0));
      const copies = layers.map(({ present, slots, used }, layer) => ({
        present: present.slice(0, copy.lengths[layer]),
        slots: slots.slice(0, own[layer]),
        used: used.slice(0, own[layer]),
      }));
      return cacheOf({ ...tier, inner: copy, lengths: own, layers: copies, host: host.share() });
    },
    dispose() {
      truncate([]);
      inner.dispose();
      if (!isDisposed) host.dispose();
      isDisposed = true;
    },
  };
}

/** The index of the first of ascending numbers that is at least `row`. */
function indexIn(ascending: readonly number[], row: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] as number) < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Brings the rows that are not present into the tensor, at their places. */
function fetchRows({ inner, layers, host, config }: Tier, layer: number, rows: readonly number[]): void {
  const own = layers[layer] as TieredLayer;
  const { present, slots } = own;
  let at = 0;
  const missing = rows.filter((row) => {
    while (at < present.length && (present[at] as number) < row) at++;
    return present[at] !== row;
  });
  const [first] = missing;
  if (first === undefined) return;
  const { kvHeads: g, headDim: c } = config;
  const begin = indexIn(present, first);
  const moved = readRows(inner.tensor(layer), begin, present.length, g, c);
  const behind = present.slice(begin);
  const merged = readSlots(host, missing, slots, 2 * g * c);
  for (const [i, row] of behind.entries())
    merged.push({ row, values: moved.subarray(2 * g * c * i, 2 * g * c * (i + 1)) });
  merged.sort((a, b) => a.row - b.row);
  inner.reserve(missing.length, { from: layer, to: layer + 1 });
  writeRows(
    inner,
    layer,
    begin,
    merged.map(({ values }) => values),
    g * c,
  );
  // Only the number of positions matters to layers without windows.
  inner.extend(new Array<number>(missing.length).fill(0), { from: layer, to: layer + 1 });
  own.present = [...present.slice(0, begin), ...merged.map(({ row }) => row)];
}

/** Rows on the host; rows of consecutive slots are read together. */
function readSlots(
  host: HostRows,
  rows: readonly number[],
  slots: readonly number[],
  width: number,
): { readonly row: number; readonly values: Float32Array }[] {
  const read: { readonly row: number; readonly values: Float32Array }[] = [];
  for (let from = 0; from < rows.length; ) {
    const slot = slots[rows[from] as number] as number;
    let n = 1;
    while (from + n < rows.length && slots[rows[from + n] as number] === slot + n) n++;
    const values = host.read(slot, n);
    for (let i = 0; i < n; i++)
      read.push({ row: rows[from + i] as number, values: values.subarray(i * width, (i + 1) * width) });
    from += n;
  }
  return read;
}

/** Moves up to `wanted` rows that the view does not attend to the host, those first that were asked for longest ago. */
function evictRows(
  { inner, layers, host, config }: Tier,
  layer: number,
  { rows, tail }: AttendedRows,
  wanted: number,
): void {
  const own = layers[layer] as TieredLayer;
  const { present, slots, used } = own;
  const isNeeded = new Set(rows);
  const gone = present
    .filter((row) => row < tail && !isNeeded.has(row))
    .sort((a, b) => (used[a] ?? 0) - (used[b] ?? 0) || a - b)
    .slice(0, wanted)
    .sort((a, b) => a - b);
  const [first] = gone;
  if (first === undefined) return;
  const { kvHeads: g, headDim: c } = config;
  const begin = indexIn(present, first);
  const values = readRows(inner.tensor(layer), begin, present.length, g, c);
  const width = 2 * g * c;
  const isGone = new Set(gone);
  const unwritten: number[] = [];
  const left: number[] = [];
  for (let i = begin; i < present.length; i++) {
    const row = present[i] as number;
    if (!isGone.has(row)) left.push(i - begin);
    else if (slots[row] === undefined || slots[row] === -1) unwritten.push(row);
  }
  const bytes = new Float32Array(unwritten.length * width);
  for (const [i, row] of unwritten.entries()) {
    const at = indexIn(present, row) - begin;
    bytes.set(values.subarray(at * width, (at + 1) * width), i * width);
  }
  if (unwritten.length > 0) {
    const slot = host.write(bytes);
    for (const [i, row] of unwritten.entries()) {
      while (slots.length <= row) slots.push(-1);
      slots[row] = slot + i;
    }
  }
  inner.keep(layer, begin, Int32Array.from(left));
  own.present = present.filter((row) => !isGone.has(row));
}

/** Rows of a cache tensor, f32 [rows, 2 (keys, values), kvHeads, c]. */
function readRows(kv: ReturnType<KvCache['tensor']>, begin: number, end: number, g: number, c: number): Float32Array {
  const n = end - begin;
  if (n === 0) return new Float32Array();
  const tensor = readKv(kv, begin, end, c);
  try {
    const values = floats(tensor);
    const turned = new Float32Array(values.length);
    for (let head = 0; head < 2 * g; head++)
      for (let row = 0; row < n; row++) {
        const from = (head * n + row) * c;
        turned.set(values.subarray(from, from + c), (row * 2 * g + head) * c);
      }
    return turned;
  } finally {
    tensor.dispose();
  }
}

/** Writes rows, f32 [2, kvHeads, c] each, from `begin` on. */
function writeRows(inner: KvCache, layer: number, begin: number, rows: readonly Float32Array[], half: number): void {
  const [k, v] = [0, 1].map((which) => {
    const values = new Float32Array(rows.length * half);
    for (const [i, row] of rows.entries()) values.set(row.subarray(which * half, (which + 1) * half), i * half);
    return values;
  }) as [Float32Array, Float32Array];
  const kv = inner.tensor(layer);
  const g = kv.shape[1] as number;
  const tensors = [k, v].map((values) => float32(values, [rows.length, g, half / g])) as [
    ReturnType<typeof float32>,
    ReturnType<typeof float32>,
  ];
  try {
    appendKv(kv, tensors[0], tensors[1], begin);
  } finally {
    for (const tensor of tensors) tensor.dispose();
  }
}
