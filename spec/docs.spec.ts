// README.md and docs/: all links resolve, and tables repeated from the code agree with it.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { METHODS } from '../src';
import { cli, ROOT } from './cli/run';

const PAGES = [
  ...['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'],
  ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
];
const read = (page: string): string => readFileSync(join(ROOT, page), 'utf8');

/** The anchors that GitHub gives the headings of a page. */
function anchorsOf(page: string): string[] {
  const headings = [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) => title);
  return headings.map((title) =>
    title
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}

/** The links of a page that do not resolve. */
function brokenLinks(page: string, text: string): string[] {
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
  return links.filter((link) => {
    if (/^https?:/.test(link)) return false;
    const [path = '', anchor] = link.split('#');
    const target = path === '' ? page : join(dirname(page), path);
    if (!existsSync(join(ROOT, target))) return true;
    return anchor !== undefined && !anchorsOf(target).includes(anchor);
  });
}

test.each(PAGES)('all links of %s resolve', (page) => {
  expect(brokenLinks(page, read(page))).toEqual([]);
});

test('the spec detects a broken link', () => {
  expect(brokenLinks('docs/gpu.md', '[a](none.md) [b](errors.md#none) [c](../README.md#install)')).toEqual([
    'none.md',
    'errors.md#none',
  ]);
});

test('README.md has at most 90 lines', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(90);
});

test('CONTRIBUTING.md lists every part of the benchmark', () => {
  const parts = readdirSync(join(ROOT, 'scripts/bench')).flatMap((name) =>
    [...read(`scripts/bench/${name}`).matchAll(/^ {2}command: '([\w-]+)/gm)].map(([, command = '']) => command),
  );
  expect(parts).toContain('ops');
  expect(parts.filter((part) => !read('CONTRIBUTING.md').includes(`npm run bench -- ${part} `))).toEqual([]);
});

test('README.md counts the methods whose papers docs/methods.md names, but for SparseVILA', () => {
  const papers = new Set([...read('docs/methods.md').matchAll(/arXiv (\d{4}\.\d{5})/g)].map(([, id]) => id));
  const [, count] = /and (\d+) other\s+published methods/.exec(read('README.md')) ?? [];
  expect(Number(count)).toBe(papers.size - 1);
});

test('docs/methods.md lists every method as its table in the code does', () => {
  const cells = [...read('docs/methods.md').matchAll(/^\| `(.*)\|$/gm)].map(([, row = '']) =>
    row.split('|').map((cell) => cell.replace('`', '').trim()),
  );
  const yes = (is: boolean): string => (is ? 'yes' : 'no');
  expect(cells).toEqual(
    METHODS.map((m) => [m.name, m.title, m.stage, yes(m.queryAware), yes(m.safeForLaterTurns), m.source]),
  );
});

test('docs/configuration.md lists every environment variable that the code reads', () => {
  const sources = ['src', 'native'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(ts|cc)$/.test(name))
      .map((name) => join(folder, name)),
  );
  const variables = sources.flatMap((path) => [
    ...read(path).matchAll(/(?:env\.|env, '|getenv\(")((?:SPARSEVILA|XDG)_[A-Z_]+)/g),
  ]);
  const names = [...new Set(variables.map(([, name = '']) => name))];
  expect(names.length).toBeGreaterThan(5);
  expect(names.filter((name) => !read('docs/configuration.md').includes(`\`${name}`))).toEqual([]);
});

test('every option in the tables of docs/configuration.md is one of `ask`', async () => {
  const rows = read('docs/configuration.md').matchAll(/^\| `\w+` +\| `(--[\w-]+)`/gm);
  const options = [...rows].map(([, option = '']) => option);
  expect(options.length).toBeGreaterThan(8);
  const help = (await cli(['ask', '--help'])).stdout;
  expect(options.filter((option) => !new RegExp(`${option}(?![\\w-])`).test(help))).toEqual([]);
});
