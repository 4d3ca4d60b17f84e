// Imports between layers point down only: reads the imports of every source and fails on any other.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The layers that the public API consists of. */
const PUBLIC: readonly string[] = [
  'errors',
  'options',
  'files',
  'hub',
  'runtime',
  'ops',
  'image',
  'video',
  'text',
  'grammar',
  'models',
  'sparsity',
  'session',
  'engine',
  'jobs',
  'server',
  'checkpoint',
  'convert',
  'quantize',
  'explain',
  'evaluate',
];

/** The layers that the files of a layer may import, besides their own. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  abort: [],
  errors: [],
  options: ['errors'],
  packages: ['errors'],
  files: ['errors'],
  json: ['errors', 'files'],
  runtime: ['abort', 'errors', 'options', 'packages', 'files'],
  ops: ['errors', 'files', 'runtime', 'text'],
  image: ['abort', 'errors', 'options', 'packages', 'files'],
  video: ['abort', 'errors', 'options', 'files', 'runtime', 'image'],
  text: ['errors', 'options', 'files', 'json'],
  grammar: ['errors', 'options', 'text'],
  scenes: ['errors', 'options', 'files', 'runtime', 'text'],
  checkpoint: ['errors', 'files', 'json', 'runtime', 'ops'],
  hub: ['abort', 'errors', 'options', 'files', 'json', 'runtime'],
  models: ['errors', 'options', 'files', 'json', 'runtime', 'ops', 'checkpoint', 'image', 'video', 'text', 'hub'],
  sparsity: ['errors', 'options', 'text'],
  session: [
    'errors',
    'options',
    'files',
    'json',
    'runtime',
    'ops',
    'checkpoint',
    'image',
    'text',
    'grammar',
    'models',
    'sparsity',
  ],
  engine: [
    'abort',
    'errors',
    'options',
    'files',
    'runtime',
    'ops',
    'image',
    'text',
    'grammar',
    'models',
    'sparsity',
    'session',
  ],
  jobs: ['abort', 'errors', 'options', 'packages', 'files', 'json', 'runtime', 'image', 'models', 'session', 'engine'],
  server: ['abort', 'errors', 'options', 'runtime', 'models', 'image', 'text', 'session', 'sparsity', 'engine'],
  ai: ['errors', 'options', 'text', 'session', 'engine'],
  explain: ['errors', 'options', 'files', 'runtime', 'image', 'sparsity'],
  convert: ['errors', 'options', 'files', 'json', 'runtime', 'ops', 'checkpoint', 'text', 'models'],
  quantize: [
    'errors',
    'options',
    'files',
    'json',
    'runtime',
    'ops',
    'checkpoint',
    'text',
    'models',
    'sparsity',
    'session',
  ],
  evaluate: ['errors', 'options', 'files', 'json', 'runtime', 'image', 'scenes', 'models', 'sparsity', 'session'],
  index: PUBLIC,
  cli: [...PUBLIC, 'packages', 'json', 'index'],
};

interface Import {
  readonly from: string;
  readonly to: string;
}

function sources(folder: string, ending: RegExp): string[] {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  return names.filter((name) => ending.test(name)).map((name) => join(folder, name));
}

/** The relative imports of a TypeScript source, resolved to paths without ending, from the package's folder. */
function importsOf(from: string, text: string): Import[] {
  const statement =
    /(?:^|\n)\s*(?:import|export)\s+(?:type\s)?[^'";]*?from\s*['"](\.[^'"]+)['"]|(?:import|require)\s*\(\s*['"](\.[^'"]+)['"]/g;
  return [...text.matchAll(statement)].map(([, named, called]) => ({
    from,
    to: relative(ROOT, resolve(ROOT, dirname(from), (named ?? called ?? '').replace(/\.js$/, ''))),
  }));
}

function layerOf(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '');
}

/** The family a file belongs to: `vila.ts` and `vila_layouts.ts` to vila. Families never import each other. */
function familyOf(path: string): string | undefined {
  const name = /^src\/models\/families\/([^/]+?)(\.ts)?(\/|$)/.exec(path)?.[1];
  return name?.replace(/_(layouts|settings)$/, '');
}

/** Headers that no kernel may include: TensorFlow's, Node's, and those of folders that use them. */
const FOREIGN = /#\s*include\s*["<](tensorflow|tsl|xla|absl|node_api|(\.\.\/)*(ops|device)\/)/;

/** Why an import is forbidden; undefined if it is allowed. */
function objection({ from, to }: Import): string | undefined {
  const [layer, target] = [layerOf(from), layerOf(to)];
  const allowed = [layer, ...(ALLOWED[layer] ?? [])];
  if (!(layer in ALLOWED)) return `${from} is in no known layer: give '${layer}' a row in spec/layers.spec.ts`;
  if (!to.startsWith('src/')) return `${from} imports ${to}, which is outside src/`;
  if (!allowed.includes(target)) return `${from} (${layer}) imports ${to} (${target})`;
  const [family, other] = [familyOf(from), familyOf(to)];
  if (family && other && family !== other) return `${from} imports ${to}: families never import each other`;
  return undefined;
}

const imports = sources('src', /\.ts$/).flatMap((path) => importsOf(path, readFileSync(join(ROOT, path), 'utf8')));

describe('layers', () => {
  test('every import is from a lower layer', () => {
    expect(imports.length).toBeGreaterThan(10);
    expect(imports.map(objection).filter((text) => text !== undefined)).toEqual([]);
  });

  test.each([
    ['native/kernels', 50],
    ['native/cuda', 20],
    ['testing/cuda', 5],
  ])('%s knows neither TensorFlow nor Node', (folder, least) => {
    const found = sources(folder, /\.(cc|cu|h|cuh|inl|def)$/);
    expect(found.length).toBeGreaterThan(least);
    expect(found.filter((path) => FOREIGN.test(readFileSync(join(ROOT, path), 'utf8')))).toEqual([]);
  });

  test.each(['#include "tensorflow/c/kernels.h"', '# include <node_api.h>', '#include "../ops/checks.h"'])(
    'detects %s in a kernel',
    (line) => expect(line).toMatch(FOREIGN),
  );

  test.each([
    ['src/models/vit.ts', "import { prune } from '../sparsity/prune';"],
    ['src/models/vit.ts', "import type { Method } from '../sparsity/method';"],
    ['src/models/families/vila.ts', "import { x } from './llava';"],
    ['src/models/vit.ts', "export { x } from '../session/turn';"],
    ['src/ops/rope.ts', "import {\n  a,\n  b,\n} from '../image/resize';"],
    ['src/runtime/start.ts', "const x = await import('../cli/main');"],
    ['src/runtime/start.ts', "import { op } from '../ops/rope';"],
    ['src/image/decode.ts', "import { start } from '../runtime/start';"],
    ['src/sparsity/prune.ts', "import { view } from '../models/types';"],
    ['src/errors.ts', "import { x } from './runtime/paths';"],
    ['src/runtime/start.ts', "import { x } from '../../scripts/bench';"],
    ['src/helpers/all.ts', "import { x } from '../errors';"],
  ])('finds the forbidden import in %s: %s', (path, text) => {
    const found = importsOf(path, text);
    expect(found).toHaveLength(1);
    expect(found.map(objection)).not.toContain(undefined);
  });

  test.each([
    ['src/ops/rope.ts', "import { start } from '../runtime/start';"],
    ['src/models/families/vila.ts', "import { vit } from '../vit';"],
    ['src/text/template.ts', "import { readJson } from '../json';"],
    ['src/session/turn.ts', "import { load } from '../models/load';"],
    ['src/cli/ask.ts', "import { Session } from '../session/session';"],
  ])('allows the import in %s: %s', (path, text) => {
    expect(importsOf(path, text).map(objection)).toEqual([undefined]);
  });
});
