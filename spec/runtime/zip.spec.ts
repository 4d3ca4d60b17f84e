// Members of a zip file, written here by hand from the format's description.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { openZip, type ZipMember } from '../../src/runtime/zip';

interface Content {
  readonly name: string;
  readonly text: string;
  readonly method: number;
  /** Wrong values of the directory. */
  readonly size?: number;
}

function zipOf(contents: readonly Content[], comment = ''): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, text, method, size = text.length } of contents) {
    const packed = method === 8 ? deflateRawSync(text) : Buffer.from(text);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    local.writeUInt16LE(4, 28); // an extra field that the directory does not have
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(packed.length, 20);
    entry.writeUInt32LE(size, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(offset, 42);
    const whole = Buffer.concat([local, Buffer.from(name), Buffer.alloc(4), packed]);
    locals.push(whole);
    directory.push(entry, Buffer.from(name));
    offset += whole.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt32LE(Buffer.concat(directory).length, 12);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...locals, ...directory, end, Buffer.from(comment)]);
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sparsevila-zip-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

async function opened(contents: readonly Content[], comment?: string) {
  const path = join(folder, 'a.zip');
  writeFileSync(path, zipOf(contents, comment));
  const zip = await openZip(path);
  const member = (name: string): ZipMember => {
    const found = zip.members.get(name);
    if (found === undefined) throw new Error(`no ${name}`);
    return found;
  };
  return { zip, member };
}

const LONG = 'libtensorflow '.repeat(10_000);

describe('openZip', () => {
  test('reads stored, deflated and empty members', async () => {
    const contents = [
      { name: 'stored', text: 'abc', method: 0 },
      { name: 'folder/deflated', text: LONG, method: 8 },
      { name: 'empty', text: '', method: 0 },
    ];
    const { zip, member } = await opened(contents, 'a comment');
    expect([...zip.members.keys()]).toEqual(contents.map(({ name }) => name));
    for (const { name, text } of contents) expect((await zip.read(member(name))).toString()).toBe(text);
    await zip.close();
  });

  test('extracts to a file and tells the bytes', async () => {
    const { zip, member } = await opened([{ name: 'x', text: LONG, method: 8 }]);
    let bytes = 0;
    await zip.extract(member('x'), join(folder, 'new', 'x'), { onBytes: (n) => (bytes += n) });
    await zip.close();
    expect(readFileSync(join(folder, 'new', 'x'), 'utf8')).toBe(LONG);
    expect(bytes).toBe(LONG.length);
  });

  test('continues if the file is removed meanwhile', async () => {
    const { zip, member } = await opened([{ name: 'x', text: LONG, method: 8 }]);
    rmSync(join(folder, 'a.zip'));
    expect((await zip.read(member('x'))).toString()).toBe(LONG);
    await zip.close();
  });

  test('refuses a member of another size than its directory says', async () => {
    const { zip, member } = await opened([{ name: 'x', text: 'abc', method: 8, size: 4 }]);
    await expect(zip.extract(member('x'), join(folder, 'x'))).rejects.toThrow('Expected 4 bytes in x but received 3');
    await zip.close();
  });

  test('refuses an unknown method and a file that is not a zip file', async () => {
    const { zip, member } = await opened([{ name: 'x', text: 'abc', method: 14 }]);
    await expect(zip.read(member('x'))).rejects.toThrow('its method is 14');
    await zip.close();
    writeFileSync(join(folder, 'no.zip'), 'not a zip file, but long enough to have an end record');
    await expect(openZip(join(folder, 'no.zip'))).rejects.toMatchObject({ code: 'ERR_BAD_ZIP' });
  });

  test('stops on abort', async () => {
    const { zip, member } = await opened([{ name: 'x', text: LONG, method: 8 }]);
    const extracting = zip.extract(member('x'), join(folder, 'x'), { signal: AbortSignal.abort() });
    await expect(extracting).rejects.toMatchObject({ name: 'AbortError' });
    await zip.close();
  });
});
