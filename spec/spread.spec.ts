// Lists that grow with input are never spread into the arguments of a call: a question of 36,000 tokens would overflow the stack.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageFolder } from '../src/runtime/paths';

const FOLDERS = ['checkpoint', 'convert', 'models', 'quantize', 'scenes', 'session', 'sparsity', 'text'];
/** A call of what takes any number of arguments, one of which is spread. */
const SPREAD =
  /\b(push|unshift|splice|concat|max|min|fromCharCode|fromCodePoint)\((?:[^(){}]*,\s*)?\.\.\.|\.apply\(null/;

test.each(FOLDERS)('src/%s spreads no list into arguments', (folder) => {
  const path = join(packageFolder(), 'src', folder);
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const found = names.flatMap((name) =>
    readFileSync(join(path, name), 'utf8')
      .split('\n')
      .flatMap((line, i) => (SPREAD.test(line) ? [`${name}:${i + 1}: ${line.trim()}`] : [])),
  );
  expect(names.length).toBeGreaterThan(0);
  expect(found).toEqual([]);
});

test.each(['a.push(...b)', 'Math.max(0, ...b.map((x) => x))', 'String.fromCharCode(...codes)'])('finds %s', (line) => {
  expect(line).toMatch(SPREAD);
});
