// Reads the machine code of kernels out of a library that nvcc made, without NVIDIA's tools: registers, stack, shared memory, spills, and how
// many loads a thread has in flight. Formats: the fat binary of CUDA 11 to 13, ELF, and the 128-bit instructions of compute
// capability 7.0 and later, of which only opcodes, load widths and scoreboards are looked at ("Dissecting the NVIDIA Volta GPU
// Architecture via Microbenchmarking", arXiv 1804.06826, chapter 2).

export interface KernelCode {
  /** The mangled name. */
  readonly symbol: string;
  readonly registers: number;
  /** Bytes of a thread. */
  readonly stack: number;
  /** Bytes of a block, without dynamic shared memory. */
  readonly shared: number;
  readonly instructions: number;
  /** Instructions that read or write a thread's stack. */
  readonly spills: number;
  /** The most loads from global memory that one thread waits for at once along the code, and their bytes. */
  readonly loads: number;
  readonly loadBytes: number;
  /** Products on the tensor cores. */
  readonly products: number;
}

const FATBIN = Buffer.from([0x50, 0xed, 0x55, 0xba]);
const ELF_KIND = 2;
const INSTRUCTION = 16;
const [GLOBAL_LOAD, LOCAL_LOAD, LOCAL_STORE] = [0x981, 0x983, 0x387];
const PRODUCTS = [0x23c, 0x237]; // of floats, of integers
/** Bytes by the width field of a load. */
const WIDTHS = [1, 1, 2, 2, 4, 8, 16, 16];
/** Attributes of .nv.info, pairs of a symbol's number and a value: bytes of its stack frame, and registers. */
const [FRAME_SIZE, REGISTERS] = [0x11, 0x2f];
const NO_SCOREBOARD = 7;

interface Cubin {
  readonly architecture: number;
  readonly elf: Buffer;
}

/** The uncompressed machine code in a library; intermediate code is compressed and left out. */
export function cubinsOf(library: Buffer): Cubin[] {
  const found: Cubin[] = [];
  for (let at = library.indexOf(FATBIN); at >= 0; at = library.indexOf(FATBIN, at + 4)) {
    if (library.readUInt16LE(at + 4) !== 1 || library.readUInt16LE(at + 6) !== 16) continue;
    const end = at + 16 + Number(library.readBigUInt64LE(at + 8));
    for (let entry = at + 16; entry < end && end <= library.length; ) {
      const kind = library.readUInt16LE(entry);
      const [header, size] = [library.readUInt32LE(entry + 4), Number(library.readBigUInt64LE(entry + 8))];
      const elf = library.subarray(entry + header, entry + header + size);
      if (kind === ELF_KIND && elf.toString('latin1', 1, 4) === 'ELF')
        found.push({ architecture: library.readUInt32LE(entry + 28), elf });
      entry += header + size;
    }
  }
  return found;
}

interface Section {
  readonly name: string;
  readonly size: number;
  /** The number of its symbol, in 24 bits. */
  readonly info: number;
  readonly body: Buffer;
}

function sectionsOf(elf: Buffer): Section[] {
  const [table, bytes, count] = [Number(elf.readBigUInt64LE(0x28)), elf.readUInt16LE(0x3a), elf.readUInt16LE(0x3c)];
  const headers = Array.from({ length: count }, (_, i) => elf.subarray(table + i * bytes, table + (i + 1) * bytes));
  const range = (header: Buffer): [number, number] => [
    Number(header.readBigUInt64LE(24)),
    Number(header.readBigUInt64LE(32)),
  ];
  const names = headers[elf.readUInt16LE(0x3e)];
  const [namesAt] = names === undefined ? [0] : range(names);
  return headers.map((header) => {
    const [offset, size] = range(header);
    const start = namesAt + header.readUInt32LE(0);
    return {
      name: elf.toString('latin1', start, elf.indexOf(0, start)),
      size,
      info: header.readUInt32LE(44),
      body: elf.subarray(offset, offset + size),
    };
  });
}

/** The values of an attribute by the number of the symbol. */
function attributesOf(sections: readonly Section[], wanted: number): Map<number, number> {
  const values = new Map<number, number>();
  const info = sections.find(({ name }) => name === '.nv.info')?.body ?? Buffer.alloc(0);
  for (let at = 0; at + 4 <= info.length; ) {
    const [format, attribute, size] = [info.readUInt8(at), info.readUInt8(at + 1), info.readUInt16LE(at + 2)];
    if (attribute === wanted) values.set(info.readUInt32LE(at + 4), info.readUInt32LE(at + 8));
    at += 4 + (format === 4 ? size : 0); // other formats have their value in place of the size
  }
  return values;
}

type Code = Pick<KernelCode, 'instructions' | 'spills' | 'loads' | 'loadBytes' | 'products'>;

/** Follows the instructions in their order, not their jumps: a load is in flight until an instruction waits for its scoreboard. */
export function followCode(text: Buffer): Code {
  const waiting = Array.from({ length: NO_SCOREBOARD }, () => ({ loads: 0, bytes: 0 }));
  let [spills, loads, loadBytes, products] = [0, 0, 0, 0];
  for (let at = 0; at + INSTRUCTION <= text.length; at += INSTRUCTION) {
    const opcode = text.readUInt16LE(at) & 0xfff;
    const control = Number(text.readBigUInt64LE(at + 8) >> 41n);
    const [scoreboard, waits] = [(control >> 5) & 7, (control >> 11) & 63];
    for (const [i, one] of waiting.entries()) if ((waits >> i) & 1) Object.assign(one, { loads: 0, bytes: 0 });
    if (opcode === LOCAL_LOAD || opcode === LOCAL_STORE) spills++;
    if (PRODUCTS.includes(opcode)) products++;
    const board = waiting[scoreboard];
    if (opcode !== GLOBAL_LOAD || board === undefined) continue;
    board.loads++;
    board.bytes += WIDTHS[(text.readUInt16LE(at + 8) >> 9) & 7] as number;
    loads = Math.max(
      loads,
      waiting.reduce((sum, one) => sum + one.loads, 0),
    );
    loadBytes = Math.max(
      loadBytes,
      waiting.reduce((sum, one) => sum + one.bytes, 0),
    );
  }
  return { instructions: text.length / INSTRUCTION, spills, loads, loadBytes, products };
}

/** The kernels in the machine code of one architecture. */
export function kernelsOf({ elf }: Cubin): KernelCode[] {
  const sections = sectionsOf(elf);
  const [frames, registers] = [FRAME_SIZE, REGISTERS].map((attribute) => attributesOf(sections, attribute));
  return sections
    .filter(({ name }) => name.startsWith('.text.'))
    .map(({ name, info, body }) => {
      const symbol = name.slice('.text.'.length);
      const shared = sections.find((section) => section.name === `.nv.shared.${symbol}`);
      return {
        symbol,
        registers: registers?.get(info & 0xffffff) ?? 0,
        stack: frames?.get(info & 0xffffff) ?? 0,
        shared: shared?.size ?? 0,
        ...followCode(body),
      };
    });
}
