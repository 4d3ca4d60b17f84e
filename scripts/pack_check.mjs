// Tests the published package as a user: packs it, installs it in empty folders with each package manager and runs set-up, doctor, questions
// and programs there. node scripts/pack_check.mjs [npm] [pnpm] [yarn] [bun] [--nodes 20,22,24]; run it through `npm run pack-check --`.
// libtensorflow and the native modules are the machine's own; the engine is fetched anew by each package manager. Takes about a minute for npm.

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const WORK = mkdtempSync(join(tmpdir(), 'sparsevila-pack-'));
const PACKAGE = 'node_modules/sparsevila';
const MAIN = `${PACKAGE}/dist/src/cli/main.js`;
const PICTURE = `${PACKAGE}/assets/demo/scene.png`;
const QUESTION = 'Where is the yellow 2?';

/** The command of each package manager, fetched by name from the npm registry. */
const MANAGERS = {
  npm: { call: ['npm'], add: ['install'], again: ['ci'] },
  pnpm: { call: ['npx', '-y', 'pnpm@10.33.0'], add: ['add'], again: ['install', '--frozen-lockfile'] },
  yarn: {
    // In a cache of its own: the machine's may have another archive of the same version. Yarn 1 takes the newest cookie, which asks for Node 22
    // and is not loaded here, and refuses it on Node 20.
    call: ['npx', '-y', 'yarn@1.22.22', '--cache-folder', join(WORK, 'yarn-cache'), '--ignore-engines'],
    add: ['add'],
    again: ['install', '--frozen-lockfile'],
  },
  bun: { call: ['npx', '-y', 'bun@1.4.5'], add: ['add'], again: ['install', '--frozen-lockfile'] },
};

const PROGRAM = `
  const chat = model.session({ method: sparseVila({ prefillSparsity: 0.6, decodeSparsity: 0.75 }) });
  try {
    console.log(await chat.ask(${JSON.stringify(QUESTION)}, { images: [PACKAGED_PICTURE] }).text());
  } finally {
    chat.dispose();
    model.dispose();
  }
`;
const FILES = {
  'engine.cjs': `require('./${PACKAGE}/dist/src/runtime/engine.js').ensureEngine().then(console.log);\n`,
  'server.cjs': `require('./${PACKAGE}/dist/src/server/server.js');\n`,
  'common.cjs': `const { load, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } = require('sparsevila');
load(PACKAGED_MODEL).then(async (model) => {${PROGRAM}});\n`,
  'module.mjs': `import { load, PACKAGED_MODEL, PACKAGED_PICTURE, sparseVila } from 'sparsevila';
const model = await load(PACKAGED_MODEL);${PROGRAM}`,
  // README's program, unchanged.
  'readme.mjs':
    /```js\n(.*?)```/s.exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))?.[1] ??
    'throw new Error("README has no program");',
  'strict.ts': `import { load, PACKAGED_MODEL, PACKAGED_PICTURE, SparseVilaError, type Session, sparseVila } from 'sparsevila';
export async function main(): Promise<Session> {
  const model = await load(PACKAGED_MODEL);${PROGRAM}
  if (model instanceof SparseVilaError) throw model;
  return model.session();
}\n`,
  'tsconfig.json': JSON.stringify({
    compilerOptions: {
      ...{ module: 'nodenext', target: 'es2022', lib: ['es2023'], types: ['node'] },
      // README's program, which is JavaScript, is checked too.
      ...{ strict: true, noEmit: true, allowJs: true, checkJs: true },
    },
    files: ['strict.ts', 'readme.mjs'],
  }),
};

let failures = 0;

/** Runs a program to its end. `output` is stdout and stderr, and `seconds` its time. */
function run(folder, [program, ...args], env = {}) {
  const begin = performance.now();
  // The repository's own npm settings and what npm says to this script are not the user's.
  const inherited = Object.entries(process.env).filter(([name]) => !/^npm_|^INIT_CWD$|^NODE_OPTIONS$/i.test(name));
  const all = { ...Object.fromEntries(inherited), TF_CPP_MIN_LOG_LEVEL: '3', SPARSEVILA_DEVICE: 'cpu', ...env };
  const result = spawnSync(program, args, { cwd: folder, env: all, encoding: 'utf8', timeout: 600_000 });
  const seconds = (performance.now() - begin) / 1000;
  return {
    code: result.status,
    stdout: result.stdout ?? '',
    output: `${result.stdout}${result.stderr}${result.error ?? ''}`,
    seconds,
  };
}

/** Records whether `result` is as expected. */
function check(name, result, isRight, more = '') {
  const right = isRight(result);
  if (!right) failures += 1;
  console.log(`${right ? 'ok  ' : 'FAIL'}  ${name}  (${result.seconds.toFixed(1)} s${more && `, ${more}`})`);
  if (!right) console.log(`      exit code ${result.code}\n${result.output.trim().split('\n').slice(-15).join('\n')}`);
  return right;
}

const succeeds = ({ code }) => code === 0;
const says = (pattern, code) => (result) => result.code === code && pattern.test(result.output);
const answers = says(/^[a-j]\d$/m, 0);
/** Failing rows of doctor's report, in order. */
const fails =
  (...names) =>
  ({ code, stdout }) =>
    code === (names.length > 0 ? 1 : 0) &&
    JSON.stringify(
      JSON.parse(stdout)
        .rows.filter(({ status }) => status === 'fail')
        .map(({ name }) => name),
    ) === JSON.stringify(names);

function megabytes(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, entry) => sum + statSync(join(entry.parentPath ?? entry.path, entry.name)).size, 0) / 1e6;
}

/** An empty folder with the programs, and the archive in it. */
function project(name, archive) {
  const folder = join(WORK, name);
  mkdirSync(folder);
  copyFileSync(archive, join(folder, 'sparsevila.tgz'));
  const scripts = { engine: 'node engine.cjs', setup: 'sparsevila setup', doctor: 'sparsevila doctor' };
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ name, version: '1.0.0', license: 'MIT', private: true, scripts }),
  );
  for (const [file, text] of Object.entries(FILES)) writeFileSync(join(folder, file), text);
  return folder;
}

const ask = (folder, node, env) =>
  run(folder, [node, MAIN, 'ask', '--image', PICTURE, '--question', QUESTION], {
    PATH: `${dirname(node)}:${process.env.PATH}`,
    ...env,
  });

/** The checks that are equal for all package managers. */
function checkManager(name, flags, archive, nodes) {
  const { call, add, again } = MANAGERS[name];
  const title = [name, ...flags].join(' ');
  const folder = project(title.replaceAll(' ', ''), archive);
  const installed = run(folder, [...call, ...add, ...flags, './sparsevila.tgz']);
  const size = existsSync(join(folder, 'node_modules'))
    ? `node_modules ${megabytes(join(folder, 'node_modules')).toFixed(0)} MB`
    : '';
  const isClean = ({ code, output }) => code === 0 && !/EBADENGINE|deprecated/.test(output);
  if (!check(`${title}: install, without a warning`, installed, isClean, size)) return;
  const inArchive = (path) => spawnSync('tar', ['-xzOf', archive, `package/${path}`], { maxBuffer: 2 ** 26 }).stdout;
  const packed = (path) => readFileSync(join(folder, PACKAGE, path)).equals(inArchive(path));
  const isPacked = () => ['package.json', 'CHANGELOG.md', 'dist/src/index.js', 'dist/src/options.js'].every(packed);
  check(`${title}: what is installed is what was packed`, { ...installed, seconds: 0 }, isPacked);
  const cache = join(folder, 'cache');
  const node = nodes[0].path;
  const version = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version;
  check(`${title}: --version`, run(folder, [node, MAIN, '--version']), ({ stdout }) => stdout === `${version}\n`);
  check(
    `${title}: ask before set-up`,
    ask(folder, node, { SPARSEVILA_CACHE: cache }),
    says(/ERR_NOT_SET_UP.*engine.*libtensorflow.*sparsevila setup/s, 1),
  );
  const before = run(folder, [node, MAIN, 'doctor', '--json'], { SPARSEVILA_CACHE: cache });
  check(`${title}: doctor before set-up`, before, fails('engine', 'libtensorflow', 'native modules', 'TensorFlow'));
  check(
    `${title}: engine fetched`,
    run(folder, [...call, 'run', 'engine'], { SPARSEVILA_CACHE: cache }),
    says(/engine-4/, 0),
  );
  check(`${title}: setup`, run(folder, [...call, 'run', 'setup']), says(/Ready: /, 0));
  check(`${title}: doctor`, run(folder, [...call, 'run', 'doctor']), says(/^ok +TensorFlow/m, 0));
  for (const { major, path } of nodes) {
    check(`${title}: ask, Node ${major}`, ask(folder, path), answers);
    check(`${title}: CommonJS, Node ${major}`, run(folder, [path, 'common.cjs']), answers);
    check(`${title}: server, Node ${major}`, run(folder, [path, 'server.cjs']), succeeds);
    check(`${title}: ESM, Node ${major}`, run(folder, [path, 'module.mjs']), answers);
    check(`${title}: README's program, Node ${major}`, run(folder, [path, 'readme.mjs']), answers);
  }
  rmSync(join(folder, 'node_modules'), { recursive: true });
  check(
    `${title}: ${again.join(' ')}`,
    run(folder, [...call, ...again, ...flags.filter((flag) => flag.startsWith('--ignore'))]),
    succeeds,
  );
  check(`${title}: ask after ${again[0]}`, ask(folder, node), answers);
}

/** An installation without optional packages, its repair as the error says, and `npm ci` after it. */
function checkOmitted(archive, node) {
  const folder = project('omitted', archive);
  check(
    'npm --omit=optional: install',
    run(folder, ['npm', 'install', '--omit=optional', './sparsevila.tgz']),
    succeeds,
  );
  check('npm --omit=optional: doctor', run(folder, [node, MAIN, 'doctor', '--json']), fails('sharp'));
  check('npm --omit=optional: setup', run(folder, [node, MAIN, 'setup']), says(/Ready: /, 0));
  const asked = ask(folder, node);
  check('npm --omit=optional: ask', asked, says(/ERR_PACKAGE_INCOMPLETE.*sharp/, 1));
  const [, command] = /Run `([^`]+)` in your project/.exec(asked.output) ?? [];
  check(`npm --omit=optional: the advice, ${command}`, run(folder, (command ?? 'false').split(' ')), succeeds);
  check('npm --omit=optional: ask after the advice', ask(folder, node), answers);
  check('npm --omit=optional: npm ci after the advice', run(folder, ['npm', 'ci']), succeeds);
  check('npm --omit=optional: ask after npm ci', ask(folder, node), answers);
}

/** Strict TypeScript that checks every declaration and has no DOM. */
function checkTypes(archive) {
  const folder = project('types', archive);
  const packages = ['./sparsevila.tgz', 'typescript@5.9.3', '@types/node@20.19.43'];
  check('TypeScript: install', run(folder, ['npm', 'install', ...packages]), succeeds);
  const compiled = run(folder, [process.execPath, 'node_modules/typescript/bin/tsc', '-p', '.']);
  check('TypeScript: strict, without DOM, every declaration checked', compiled, succeeds);
}

/** The path of each Node version, fetched by name unless it is the running one. */
function findNodes(majors) {
  return majors.map((major) => {
    if (process.versions.node.startsWith(`${major}.`)) return { major, path: process.execPath };
    const found = run(WORK, ['npx', '-y', `node@${major}`, '-p', 'process.execPath']);
    if (found.code !== 0) throw new Error(`Expected Node ${major} from the registry: ${found.output}`);
    return { major, path: found.stdout.trim() };
  });
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { nodes: { type: 'string' } } });
const managers = positionals.length > 0 ? positionals : ['npm'];
const unknown = managers.find((name) => !Object.hasOwn(MANAGERS, name));
if (unknown !== undefined)
  throw new Error(`Expected some of ${Object.keys(MANAGERS).join(', ')}, received ${unknown}.`);
try {
  const nodes = findNodes(values.nodes?.split(',') ?? [process.versions.node.split('.')[0]]);
  const packed = run(ROOT, ['npm', 'pack', '--ignore-scripts', '--pack-destination', WORK]);
  const [name] = readdirSync(WORK).filter((entry) => entry.endsWith('.tgz'));
  if (!check('npm pack', packed, ({ code }) => code === 0 && name !== undefined)) process.exit(1);
  const archive = join(WORK, name);
  console.log(`      the archive has ${(statSync(archive).size / 1e6).toFixed(1)} MB`);
  for (const manager of managers) {
    checkManager(manager, [], archive, nodes);
    if (manager !== 'npm') continue;
    checkManager('npm', ['--ignore-scripts'], archive, nodes.slice(0, 1));
    checkOmitted(archive, nodes[0].path);
    checkTypes(archive);
  }
} finally {
  rmSync(WORK, { recursive: true });
}
console.log(failures === 0 ? 'pack-check: all right' : `pack-check: ${failures} failed`);
process.exitCode = failures === 0 ? 0 : 1;
