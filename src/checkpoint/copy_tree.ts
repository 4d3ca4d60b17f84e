// Copies the files of a checkpoint, chosen by name, from one folder to another. Folders are walked, links to folders
// are not, and a link to a file is followed only inside the checkpoint or, as in the Hugging Face cache, to `../../blobs`, so that
// files outside are never copied.

import { constants, lstatSync, realpathSync } from 'node:fs';
import { copyFile, mkdir, open, writeFile } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { SparseVilaError } from '../errors';
import { filesBelow, openRegularHandle, shownPath } from '../files';
import { writeError } from '../runtime/atomic';

/** Files that loading a checkpoint may need: one that cannot be copied is an error. */
const NEEDED =
  /^(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab|(video_)?(pre)?processor_config|chat_templates?|.*\.index)\.json$|^(merges|vocab)\.txt$|^(tokenizer|spiece|sentencepiece\S*)\.model$|\.(jinja|tiktoken|safetensors)$/;
/** Accompanying files: copied if they are regular files, else omitted. */
const ACCOMPANYING = /^(LICEN[CS]E|NOTICE|README|USE_POLICY|MODEL_CARD)|\.(json|txt|md|py|model|ya?ml)$/i;
export interface CopyOptions {
  /** Folders without which the copy would not load: none may be a link. */
  readonly parts: readonly string[];
  /** Whether to omit a file, by its path in the folder. */
  readonly skip: (path: string) => boolean;
  /** The path of a file in the new folder. Default: the same path. */
  readonly move?: (path: string) => string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Copies a checkpoint's files from `from` to the folder `to`.
 * @throws SparseVilaError `ERR_PATH_OUTSIDE` for a needed file or folder that is a link out of the checkpoint;
 *   `ERR_FILE_UNREADABLE` for one that is not a file; `ERR_DISK_FULL`, `ERR_OUTPUT_UNWRITABLE`; `signal.reason`
 */
export async function copyTree(from: string, to: string, options: CopyOptions): Promise<void> {
  const root = realpathSync(from);
  const isCache = basename(dirname(root)) === 'snapshots';
  const inside = [root, ...(isCache ? [join(dirname(dirname(root)), 'blobs')] : [])];
  for (const path of chosen(from, options.parts)) {
    options.signal?.throwIfAborted();
    if (options.skip(path)) continue;
    const source = join(from, path);
    const isNeeded = NEEDED.test(basename(path));
    const obstacle = await obstacleOf(source, inside);
    if (obstacle !== undefined && isNeeded) throw obstacle;
    if (obstacle === undefined) await copy(source, join(to, options.move?.(path) ?? path));
  }
}

/** Paths of the files chosen by name, including links to files. */
function chosen(root: string, parts: readonly string[]): string[] {
  for (const part of parts) if (lstatSync(part, { throwIfNoEntry: false })?.isSymbolicLink()) throw outside(part);
  const isHidden = (path: string): boolean => path.split(sep).some((name) => name.startsWith('.'));
  const isChosen = (name: string): boolean => NEEDED.test(name) || ACCOMPANYING.test(name);
  return filesBelow(root).filter((path) => !isHidden(path) && isChosen(basename(path)));
}

/** Why a file must not be copied. */
async function obstacleOf(source: string, inside: readonly string[]): Promise<unknown> {
  try {
    await (await openRegularHandle(source, { what: 'a file of the checkpoint' })).close();
    const real = realpathSync(source);
    return inside.some((folder) => real.startsWith(`${folder}${sep}`)) ? undefined : outside(source);
  } catch (error) {
    return error;
  }
}

async function copy(source: string, target: string): Promise<void> {
  const input = await openRegularHandle(source, { what: 'a file of the checkpoint' });
  try {
    await mkdir(dirname(target), { recursive: true });
    // Copies the open file that was checked, even if the name now refers to another; on Linux, file systems that can share the blocks.
    if (process.platform === 'linux')
      await copyFile(`/proc/self/fd/${input.fd}`, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    else await writeFile(target, input.createReadStream({ autoClose: false }), { flag: 'wx' });
    const output = await open(target, 'r');
    await output.sync().finally(() => output.close());
  } catch (error) {
    throw writeError(error, target);
  } finally {
    await input.close();
  }
}

function outside(path: string): SparseVilaError {
  return new SparseVilaError(
    'ERR_PATH_OUTSIDE',
    `${shownPath(path)}: a link out of the checkpoint's folder is not copied. Put what it points to in its place (cp -rL).`,
  );
}
