// An MP4 or QuickTime file in memory whose index (`moov`) lies behind its data (`mdat`), as cameras write it: the index is moved to the front,
// since a program that reads a pipe cannot seek. Source: ISO/IEC 14496-12 (boxes; `stco` and `co64`, offsets of chunks).

interface Box {
  readonly type: string;
  readonly begin: number;
  /** Where its content begins. */
  readonly content: number;
  readonly end: number;
}

/** Boxes on the way to the tables of offsets. */
const PARENTS: readonly string[] = ['moov', 'trak', 'mdia', 'minf', 'stbl'];
/** Beyond this an offset in 32 bits would overflow; such files are left as they are. */
const MOST_OFFSET = 0xffff_ffff;

/** The pieces of the file in an order in which it can be read without seeking; the file alone if it is no such file, or cannot be reordered. */
export function streamable(file: Uint8Array): readonly Uint8Array[] {
  const boxes = boxesIn(file, 0, file.byteLength);
  const index = boxes.find(({ type }) => type === 'moov');
  const data = boxes.find(({ type }) => type === 'mdat');
  if (index === undefined || data === undefined || index.begin < data.begin) return [file];
  const moved = file.slice(index.begin, index.end);
  if (!shiftOffsets(moved, moved.byteLength)) return [file];
  return [file.subarray(0, data.begin), moved, file.subarray(data.begin, index.begin), file.subarray(index.end)];
}

const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength);

/** The boxes from `begin` to `end`; as many as are whole. */
function boxesIn(file: Uint8Array, begin: number, end: number): Box[] {
  const view = viewOf(file);
  const boxes: Box[] = [];
  for (let at = begin; at + 8 <= end; ) {
    const short = view.getUint32(at);
    const isLong = short === 1;
    if (isLong && at + 16 > end) break;
    const size = isLong ? Number(view.getBigUint64(at + 8)) : short === 0 ? end - at : short;
    const type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const content = at + (isLong ? 16 : 8);
    if (size < content - at || at + size > end) break;
    boxes.push({ type, begin: at, content, end: at + size });
    at += size;
  }
  return boxes;
}

/** Adds `by` to every offset in the index; false if one cannot hold the sum, or a table is longer than its box. */
function shiftOffsets(index: Uint8Array, by: number): boolean {
  const view = viewOf(index);
  const visit = (begin: number, end: number): boolean =>
    boxesIn(index, begin, end).every(({ type, content, end: last }) => {
      if (PARENTS.includes(type)) return visit(content, last);
      if (type !== 'stco' && type !== 'co64') return true;
      const width = type === 'stco' ? 4 : 8;
      const count = content + 8 <= last ? view.getUint32(content + 4) : -1;
      if (count < 0 || content + 8 + count * width > last) return false;
      for (let at = content + 8; at < content + 8 + count * width; at += width) {
        if (width === 8) view.setBigUint64(at, view.getBigUint64(at) + BigInt(by));
        else if (view.getUint32(at) + by > MOST_OFFSET) return false;
        else view.setUint32(at, view.getUint32(at) + by);
      }
      return true;
    });
  return visit(0, index.byteLength);
}
