// Questions of the kinds that the packaged model was trained on, about pictures whose contents are known from the reference
// conversations' true answers, to compare the answers of a 4-bit model.
import type { CalibrationSample } from '../../src/quantize/calibration';

const PAIR = /^(red|green|blue|yellow|purple|orange|cyan|white) (\w+)$/;

/** Up to `count` questions about a picture that has conversations with truths, those of the conversation first. */
export function questionsAbout({ turns }: CalibrationSample, count: number): string[] {
  const objects = new Set<string>();
  const [cells, rows] = [new Set<string>(), new Set<string>()];
  for (const { question, truth = '' } of turns) {
    const [, row] = /^Read row (\d)/.exec(question) ?? [];
    const [, asked] = /^Where is the (.+)\?$/.exec(question) ?? [];
    const [, at] = /^What is at (\w\d)\?$/.exec(question) ?? [];
    const [, type] = /^What color is the (.+)\?$/.exec(question) ?? [];
    const [, color] = /^List the (\w+) objects/.exec(question) ?? [];
    for (const name of truth.split(', ')) if (PAIR.test(name)) objects.add(name);
    if (asked !== undefined) objects.add(asked);
    if (type !== undefined) objects.add(`${truth} ${type}`);
    if (color !== undefined) for (const name of truth.split(', ')) objects.add(`${color} ${name}`);
    if (asked !== undefined) cells.add(truth);
    if (at !== undefined && truth !== 'nothing') cells.add(at);
    if (row !== undefined && truth !== 'nothing') rows.add(row);
  }
  for (const cell of cells) rows.add(cell.slice(1));
  const colors = new Set([...objects].map((name) => name.split(' ')[0] ?? ''));
  const made = [
    ...turns.map(({ question }) => question),
    ...[...cells].map((cell) => `What is at ${cell}?`),
    ...[...rows].map((row) => `Read row ${row}.`),
    ...[...colors].flatMap((color) => [`How many ${color} objects are there?`, `List the ${color} objects.`]),
    ...[...objects].flatMap((name) => [
      `Where is the ${name}?`,
      `What color is the ${name.split(' ')[1]}?`,
      `Is there a ${name}?`,
    ]),
    ...Array.from({ length: 10 }, (_, i) => `What is at ${'abcdefghij'[(3 * i + 1) % 10]}${i}?`),
  ];
  return [...new Set(made)].slice(0, count);
}
