// Questions about frames, each answerable, with their true answers. Knows no pixels and no model.
// Source: scene.py's questions() and film_questions.py's film_qs() of the packaged models, whose draws they repeat in order.

import type { Random } from './random';
import { COLOR_NAMES, cellName, EMPTY, type Frame, GRID, TYPES } from './scene';

/** The kinds of questions with their frequencies; `frame` is added for several frames. */
const KINDS = [
  ...['color', 'color', 'where', 'where', 'at', 'at', 'count', 'row', 'row', 'yesno', 'list'],
] as readonly Kind[];
const VIDEO_KINDS: readonly Kind[] = [...KINDS, 'frame', 'frame'];
const MOST_TRIES = 60;
/** The kinds of questions about a whole film, which name no frame. */
const FILM_KINDS: readonly Kind[] = ['color', 'square', 'shown'];
const MOST_FILM_TRIES = 200;

export type Kind = 'color' | 'where' | 'at' | 'count' | 'row' | 'yesno' | 'list' | 'frame' | 'square' | 'shown';

export interface Question {
  readonly question: string;
  readonly answer: string;
  readonly kind: Kind;
  /** The only frame that shows the answer, where a question about a whole film has one. */
  readonly frame?: number;
}

interface Thing {
  readonly frame: number;
  readonly cell: number;
  readonly type: number;
  readonly color: number;
}

/** The input of a question. */
interface Subject {
  readonly random: Random;
  readonly frames: readonly Frame[];
  /** The frame of questions about one frame, and the words that refer to it. */
  readonly frame: number;
  readonly where: string;
  /** Things of all frames; of that frame; things whose glyph, or glyph and color, is unique over all frames. */
  readonly things: readonly Thing[];
  readonly here: readonly Thing[];
  readonly uniqueTypes: readonly Thing[];
  readonly unique: readonly Thing[];
}

/** `count` questions, or fewer if 60 tries do not give more; they may repeat. */
export function questionsAbout(random: Random, frames: readonly Frame[], count: number): Question[] {
  const about = thingsOf(frames);
  const kinds = frames.length > 1 ? VIDEO_KINDS : KINDS;
  const questions: Question[] = [];
  for (let tries = 0; questions.length < count && tries < MOST_TRIES; tries++) {
    const frame = random.below(frames.length);
    const where = frames.length > 1 ? ` in frame ${frame + 1}` : '';
    const here = about.things.filter((thing) => thing.frame === frame);
    const kind = random.choice(kinds);
    const made = MAKERS[kind]({ random, frames, frame, where, here, ...about });
    if (made !== undefined) questions.push({ question: made[0], answer: made[1], kind });
  }
  return questions;
}

/** `count` questions about a whole film, however long, or fewer if 200 tries do not give more; they may repeat. */
export function filmQuestions(random: Random, frames: readonly Frame[], count: number): Question[] {
  const about = { random, frames, frame: 0, where: ' in any frame', here: [], ...thingsOf(frames) };
  const questions: Question[] = [];
  for (let tries = 0; questions.length < count && tries < MOST_FILM_TRIES; tries++) {
    const kind = random.choice(FILM_KINDS);
    const made = MAKERS[kind](about);
    if (made === undefined) continue;
    const [question, answer, frame] = made;
    questions.push({ question, answer, kind, ...(frame !== undefined && { frame }) });
  }
  return questions;
}

/** All things, those whose glyph is there once, and those whose glyph and color are there once. */
function thingsOf(frames: readonly Frame[]): Pick<Subject, 'things' | 'uniqueTypes' | 'unique'> {
  const things = frames.flatMap(thingsIn);
  const times = (key: (thing: Thing) => string, thing: Thing): number =>
    things.filter((other) => key(other) === key(thing)).length;
  return {
    things,
    uniqueTypes: things.filter((thing) => times(({ type }) => String(type), thing) === 1),
    unique: things.filter((thing) => times(nameOf, thing) === 1),
  };
}

function thingsIn({ types, colors }: Frame, frame: number): Thing[] {
  return [...types.entries()]
    .filter(([, type]) => type !== EMPTY)
    .map(([cell, type]) => ({ frame, cell, type, color: colors[cell] as number }));
}

function nameOf({ type, color }: Pick<Thing, 'type' | 'color'>): string {
  return `${COLOR_NAMES[color]} ${TYPES[type]}`;
}

/** Question, answer, and the frame of a thing that is unique; undefined if the drawn thing does not exist. */
type Maker = (subject: Subject) => readonly [question: string, answer: string, frame?: number] | undefined;

const MAKERS: Readonly<Record<Kind, Maker>> = {
  color: ({ random, uniqueTypes }) => {
    if (uniqueTypes.length === 0) return undefined;
    const thing = random.choice(uniqueTypes);
    return [`What color is the ${TYPES[thing.type]}?`, String(COLOR_NAMES[thing.color]), thing.frame];
  },
  where: ({ random, frames, unique }) => {
    if (unique.length === 0) return undefined;
    const thing = random.choice(unique);
    const frame = frames.length > 1 ? `frame ${thing.frame + 1}, ` : '';
    return [`Where is the ${nameOf(thing)}?`, frame + cellName(thing.cell)];
  },
  frame: ({ random, unique }) => {
    if (unique.length === 0) return undefined;
    const thing = random.choice(unique);
    return [`Which frame shows the ${nameOf(thing)}?`, `frame ${thing.frame + 1}`];
  },
  at: ({ random, here, where }) => {
    const known = random.next() < 0.8 && here.length > 0;
    const cell = known ? random.choice(here).cell : random.below(GRID) * GRID + random.below(GRID);
    const thing = here.find((other) => other.cell === cell);
    return [`What is at ${cellName(cell)}${where}?`, thing === undefined ? 'nothing' : nameOf(thing)];
  },
  count: ({ random, here, where }) => {
    const color = random.below(COLOR_NAMES.length);
    const count = here.filter((thing) => thing.color === color).length;
    if (count === 0 && random.next() < 0.7) return undefined;
    return [`How many ${COLOR_NAMES[color]} objects are there${where}?`, String(count)];
  },
  row: ({ random, here, where }) => {
    const rows = ascending(here.map(({ cell }) => Math.floor(cell / GRID)));
    if (rows.length === 0) return undefined;
    const row = random.next() < 0.9 ? random.choice(rows) : random.below(GRID);
    const names = here.filter(({ cell }) => Math.floor(cell / GRID) === row).map(nameOf);
    return [`Read row ${row}${where}.`, names.join(', ') || 'nothing'];
  },
  yesno: ({ random, here, where }) => {
    const asked = random.next() < 0.5 && here.length > 0 ? random.choice(here) : otherThing(random, here);
    const isThere = here.some((thing) => nameOf(thing) === nameOf(asked));
    return [`Is there a ${nameOf(asked)}${where}?`, isThere ? 'yes' : 'no'];
  },
  list: ({ random, here, where }) => {
    const colors = ascending(here.map(({ color }) => color));
    if (colors.length === 0) return undefined;
    const color = random.choice(colors);
    const names = here.filter((thing) => thing.color === color).map(({ type }) => TYPES[type]);
    return [`List the ${COLOR_NAMES[color]} objects${where}.`, names.join(', ')];
  },
  square: ({ random, unique }) => {
    if (unique.length === 0) return undefined;
    const thing = random.choice(unique);
    return [`On which square is the ${nameOf(thing)}?`, cellName(thing.cell), thing.frame];
  },
  shown: ({ random, things, where }) => {
    const asked = random.next() < 0.5 && things.length > 0 ? random.choice(things) : otherThing(random, []);
    const isThere = things.some((thing) => nameOf(thing) === nameOf(asked));
    return [`Is there a ${nameOf(asked)}${where}?`, isThere ? 'yes' : 'no'];
  },
};

/** A random glyph and color; the glyph often exists in the frame. */
function otherThing(random: Random, here: readonly Thing[]): Pick<Thing, 'type' | 'color'> {
  const [type, color] = [random.below(TYPES.length), random.below(COLOR_NAMES.length)];
  return { type: here.length > 0 && random.next() < 0.6 ? random.choice(here).type : type, color };
}

function ascending(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}
