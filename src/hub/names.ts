// Names of models on the Hub, `owner/name` or `owner/name@revision`, and valid revisions. Source: huggingface_hub 2.4 `utils/_validators.py`;
// git-check-ref-format(1). A name of one part (`gpt2`) is not accepted, because it is more likely a folder.

import { received } from '../errors';
import { type Check, invalidOption } from '../options';

export interface HubName {
  /** `owner/name`. */
  readonly name: string;
  /** A branch, tag or commit; undefined where none is given. */
  readonly revision?: string;
}

export const DEFAULT_REVISION = 'main';

const LONGEST_NAME = 96;
const LONGEST_REVISION = 200;

const PART = /^[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;
const COMMIT = /^[0-9a-f]{40}$/;

/** Whether a revision is a whole commit hash, which always refers to the same state of the repository. */
export const isCommit = (revision: string): boolean => COMMIT.test(revision);

/** Each part becomes the name of a folder or file below `refs/`. */
function isRevision(text: string): boolean {
  return (
    text.length <= LONGEST_REVISION &&
    !text.includes('..') &&
    text.split('/').every((part) => /^\w[\w.+-]*$/.test(part) && !/\.(lock|tmp-[0-9a-f]{16})$/.test(part))
  );
}

export const REVISION: Check = {
  expected: 'a branch, tag or commit of the model',
  accepts: (value) => typeof value === 'string' && isRevision(value),
};

/** `text` as a Hub name; undefined if it can only be a path (`./x`, `/x`, `a/b/c`, `x`) or is not a name. */
export function hubName(text: string): HubName | undefined {
  const at = text.indexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? undefined : text.slice(at + 1);
  const parts = name.split('/');
  const isName = parts.length === 2 && name.length <= LONGEST_NAME && parts.every((part) => PART.test(part));
  // `--` stands for `/` in the cache's folder names.
  if (!isName || /--|\.\./.test(name) || /\.git$/.test(name)) return undefined;
  if (revision === undefined) return { name };
  return isRevision(revision) ? { name, revision } : undefined;
}

/**
 * The Hub name and revision of an API call.
 * @throws SparseVilaError `ERR_OPTION_INVALID` for no name, or for a revision in both places
 */
export function requireHubName(what: string, text: unknown, revision: string | undefined): HubName {
  const found = typeof text === 'string' ? hubName(text) : undefined;
  if (found === undefined) throw invalidOption(what, 'owner/name or owner/name@revision for name', received(text));
  if (revision === undefined) return found;
  if (found.revision === undefined) return { ...found, revision };
  throw invalidOption(what, 'the revision once', `${received(text)} and the option revision`);
}
