// Finds the chat template of a checkpoint: the caller's, the one that its config names, its own file, or the one that its path implies.
// Source: transformers `utils/chat_template_utils.py` (search order); NVlabs/VILA `llava/conversation.py` (modes by name).
import { join } from 'node:path';
import { SparseVilaError } from '../errors';
import { isPresent, readTextFile } from '../files';
import { configReader, type Json, readJson } from '../json';
import { TEMPLATE_LIMITS } from './jinja';
import { isNamedTemplate, modeOfPath, NAMED_TEMPLATES, TEMPLATE_NAMES, type TemplateName } from './named_templates';
import { type ChatTemplate, chatTemplate } from './template';

export interface TemplateOptions {
  /** The caller's template: a name of `NAMED_TEMPLATES`, Jinja source, or the path of a file with it. */
  readonly template?: string | undefined;
  /** The name that the root config gives, and the file in which it is given. */
  readonly named?: { readonly name: string; readonly file: string } | undefined;
  /** The path of the checkpoint, by which VILA chooses a mode. */
  readonly path?: string | undefined;
  /** See `ChatTemplate.strips`. */
  readonly strips?: boolean;
}

const JINJA_FILE = 'chat_template.jinja';
const JSON_PLACES = ['chat_template.json', 'tokenizer_config.json', 'processor_config.json'];

/**
 * The chat template of a checkpoint whose tokenizer is in `folder`: the first that exists of `options.template`; the one that the root config
 * names; `chat_template.jinja`; the mode of VILA-1.5 that the checkpoint's path names; `chat_template.json`, `tokenizer_config.json`,
 * `processor_config.json`; another mode that the path names. Special tokens (`bos_token`, …) come from `tokenizer_config.json` and
 * `special_tokens_map.json`.
 * @throws SparseVilaError `ERR_TEMPLATE_MISSING` with the places that were searched, `ERR_TEMPLATE_INVALID`, `ERR_TEMPLATE_LIMIT`,
 *   `ERR_FILE_…` or `ERR_CONFIG_INVALID` naming the file
 */
export function loadChatTemplate(folder: string, options: TemplateOptions = {}): ChatTemplate {
  const tokens = specialTokens(folder);
  const make = ({ source, file }: Found): ChatTemplate =>
    chatTemplate(source, file, tokens, { strips: options.strips ?? false });
  const found = fromCaller(options) ?? fromConfig(options) ?? fromFiles(folder, options);
  if (found !== undefined) return make(found);
  throw new SparseVilaError(
    'ERR_TEMPLATE_MISSING',
    `${folder}: expected a chat template in chat_template.jinja or under "chat_template" of ${JSON_PLACES.join(', ')}, found none. ` +
      `Give one: load(path, { template }), or --template on the command line, takes a file, Jinja source, or one of the names ` +
      `${TEMPLATE_NAMES} (VILA1.5-3b and 13b: vicuna_v1; 8b: llama_3; 40b: hermes-2). ` +
      `The names are also taken from "chat_template" in the checkpoint's config.json.`,
  );
}

interface Found {
  readonly source: string;
  readonly file: string;
}

const named = (name: keyof typeof NAMED_TEMPLATES): Found => ({
  source: NAMED_TEMPLATES[name],
  file: `template "${name}"`,
});

function fromCaller({ template }: TemplateOptions): Found | undefined {
  if (template === undefined) return undefined;
  if (/\{[{%]/.test(template)) return { source: template, file: 'option template' };
  if (isNamedTemplate(template)) return named(template);
  if (template !== '' && isPresent(template)) return { source: readTemplate(template), file: template };
  throw new SparseVilaError(
    'ERR_TEMPLATE_MISSING',
    `Expected a file, Jinja source, or one of ${TEMPLATE_NAMES} for template, received ${JSON.stringify(template.slice(0, 100))}.`,
  );
}

function fromConfig({ named: given }: TemplateOptions): Found | undefined {
  if (given === undefined) return undefined;
  if (isNamedTemplate(given.name)) return named(given.name);
  throw new SparseVilaError(
    'ERR_TEMPLATE_MISSING',
    `${given.file}: expected one of ${TEMPLATE_NAMES} for "chat_template", which names a template of VILA's, received ` +
      `${JSON.stringify(given.name.slice(0, 100))}. Give the template itself: load(path, { template }), or --template on the command line.`,
  );
}

function fromFiles(folder: string, { path }: TemplateOptions): Found | undefined {
  const file = join(folder, JINJA_FILE);
  if (isPresent(file)) return { source: readTemplate(file), file };
  const mode = path === undefined ? undefined : impliedTemplate(folder, path);
  return mode === undefined ? fromJson(folder) : named(mode);
}

function fromJson(folder: string): Found | undefined {
  for (const file of JSON_PLACES.map((name) => join(folder, name)).filter(isPresent)) {
    const source = templateIn(readJson(file), file);
    if (source !== undefined) return { source, file };
  }
  return undefined;
}

/**
 * The mode that the path of a checkpoint implies, if its files have no template with priority. A copy under another name needs the mode as
 * "chat_template" of its config.json.
 * @param folder of the tokenizer
 */
export function impliedTemplate(folder: string, path: string): TemplateName | undefined {
  const mode = modeOfPath(path);
  if (mode === undefined || isPresent(join(folder, JINJA_FILE))) return undefined;
  return mode.certain || fromJson(folder) === undefined ? mode.name : undefined;
}

/** The root config of the checkpoint at `path`, for a copy of it: with the mode in it that only the path implies. `folder` as above. */
export function withImpliedTemplate(root: Json, folder: string, path: string): Json {
  const name = (root.chat_template ?? undefined) === undefined ? impliedTemplate(folder, path) : undefined;
  return name === undefined ? root : { ...root, chat_template: name };
}

function readTemplate(file: string): string {
  // UTF-8 takes at most four bytes per character; the characters are counted when the template is parsed.
  const what = 'a chat template';
  return readTextFile(file, { what, limit: 4 * TEMPLATE_LIMITS.source, unreadable: 'ERR_TEMPLATE_INVALID' });
}

/** `chat_template` is the source, or a list of named sources of which "default" is used. */
function templateIn(json: Json, file: string): string | undefined {
  const found = json.chat_template ?? undefined;
  if (found === undefined || typeof found === 'string') return found;
  const list = (Array.isArray(found) ? found : []) as readonly (Json | null)[];
  const source = (list.find((entry) => entry?.name === 'default') ?? (list.length === 1 ? list[0] : null))?.template;
  if (typeof source === 'string') return source;
  throw configReader(json, file).wrong('chat_template', 'a string, or a list with a template named "default"');
}

/** `*_token` entries: strings, or objects with the string under `content`. */
function specialTokens(folder: string): Json {
  const tokens: Json = {};
  for (const file of ['special_tokens_map.json', 'tokenizer_config.json']
    .map((name) => join(folder, name))
    .filter(isPresent)) {
    for (const [key, value] of Object.entries(readJson(file))) {
      const text = typeof value === 'object' && value !== null && 'content' in value ? value.content : value;
      if (key.endsWith('_token') && typeof text === 'string') tokens[key] = text;
    }
  }
  return tokens;
}
