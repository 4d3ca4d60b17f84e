// Formulas of DART, HoloV, MMTok's vision term, CDPruner and random deep drops, on cases small enough to do by hand.

import { join } from 'node:path';
import {
  cdPruner,
  dart,
  dense,
  downsample,
  holoV,
  load,
  mmTok,
  randomDeep,
  type Selection,
  type SparsityMethod,
  type TowerView,
} from '../../src';
import { shareOut } from '../../src/sparsity/shares';
import { FIXTURES } from '../support/assets';
import { dropThrough, indicesOf, matrixOf, viewOf } from './views';

/** One row of tokens with these projected rows, their salience, and a question. */
function strip(projected: readonly number[][], salience: readonly number[] = [], question: number[][] = []): TowerView {
  const view = viewOf({ t: 1, h: 1, w: projected.length }, Float32Array.from(salience));
  return {
    ...{ ...view, tokens: projected.length },
    ...{ projected: () => matrixOf(...projected), question: () => matrixOf(...question) },
  };
}
const indices = (selections: readonly Selection[] | undefined): number[] => Array.from(indicesOf(selections?.[0]));
const angle = (degrees: number, length = 1): number[] => {
  const radians = (degrees * Math.PI) / 180;
  return [length * Math.cos(radians), length * Math.sin(radians)];
};

describe('DART', () => {
  it('keeps pivots of the largest L1 norm, and for each the tokens of the smallest cosine with it', () => {
    // Pivots 0 and 3; farthest from 0 (0 degrees) is 4 (170 degrees), then from 3 (90 degrees) it is 1 (10 degrees).
    const view = strip([angle(0, 5), angle(10), angle(60), angle(90, 4), angle(170), angle(30)]);
    const kept = (n: number) => indices(dart({ prefillSparsity: 1 - n / 6, pivots: 2 }).prune?.select([view]));
    expect([1, 2, 3, 4].map(kept)).toEqual([[0], [0, 3], [0, 1, 3], [0, 1, 3, 4]]);
  });
});

describe('HoloV', () => {
  it('gives a run its part of the budget by attention and variance, and keeps its most attended tokens', () => {
    // All point the same way: no variance. Two runs of four with attention 12 and 4: of 4 tokens, 3 and 1.
    const same = Array.from({ length: 8 }, () => [1, 0]);
    const view = strip(same, [2, 5, 1, 4, 1, 0, 2, 1]);
    expect(indices(holoV({ prefillSparsity: 0.5, runs: 2 }).prune?.select([view]))).toEqual([0, 1, 3, 6]);
  });

  it('adds 0.09 of the variance of the cosines within a run', () => {
    // Equal attention. Only the first run varies: scores 1.18 and 1.00, so the odd token is its own.
    const turned = [0, 0, 90, 0, 0, 0, 0, 0].map((degrees) => angle(degrees));
    const kept = (rows: number[][]) =>
      indices(holoV({ prefillSparsity: 1 - 3 / 8, runs: 2 }).prune?.select([strip(rows, Array(8).fill(1))]));
    expect(kept(turned)).toEqual([0, 1, 4]);
    expect(kept([...turned].reverse())).toEqual([0, 4, 5]);
  });

  it('gives to other runs what a full run cannot take', () => {
    const view = strip(
      Array.from({ length: 8 }, () => [1, 0]),
      [9, 9, 0, 0, 1, 0, 0, 0],
    );
    expect(indices(holoV({ prefillSparsity: 0.25, runs: 4 }).prune?.select([view]))).toEqual([0, 1, 2, 4, 5, 6]);
  });
});

it.each<[number[], number[], number, number[]]>([
  [[3, 1], [4, 4], 4, [3, 1]],
  [[9, 1, 1], [2, 5, 5], 6, [2, 2, 2]],
  [[1, 1, 1], [5, 5, 5], 4, [2, 1, 1]],
  [[0, 0], [1, 3], 4, [1, 3]],
  [[1, 0], [1, 3], 3, [1, 2]],
  // The share of a full part goes to parts of weight 0, equally as far as their caps allow. What rounding leaves goes to the largest weights.
  [[1, 0, 0], [1, 1, 4], 5, [1, 1, 3]],
  [[4, 1], [9, 9], 3, [3, 0]],
])('shares out by weights %j and caps %j %i: %j', (weights, most, total, counts) => {
  expect(shareOut(total, weights, { least: 0, most, rest: 'weight' })).toEqual(counts);
});

describe('MMTok', () => {
  it('adds the token that covers most, then what covers the rest', () => {
    // Three tokens at 0 degrees, two at 90, one at 180: each direction is covered by its first token.
    const view = strip([0, 0, 0, 90, 90, 180].map((degrees) => angle(degrees)));
    const kept = (n: number) => indices(mmTok({ prefillSparsity: 1 - n / 6 }).prune?.select([view]));
    expect([1, 2, 3, 4].map(kept)).toEqual([[0], [0, 3], [0, 3, 5], [0, 1, 3, 5]]);
  });
});

describe('CDPruner', () => {
  const ask = (rows: number[][], kept: number, question: number[][]) =>
    indices(cdPruner({ prefillSparsity: 1 - kept / rows.length }).prune?.select([strip(rows, [], question)]));

  it('takes the most relevant token, with the minus of the published code, then what is not like it', () => {
    // Relevance by -cos with 0 degrees: 180 first. 170 is nearly as relevant but alike; 90 is chosen next.
    const rows = [0, 90, 170, 180].map((degrees) => angle(degrees));
    expect(ask(rows, 1, [[1, 0]])).toEqual([3]);
    expect(ask(rows, 2, [[1, 0]])).toEqual([1, 3]);
    expect(ask(rows, 1, [[-2, 0]])).toEqual([0]);
  });

  it('takes the mean over the words, and counts words by direction alone', () => {
    const rows = [0, 90, 180, 270].map((degrees) => angle(degrees));
    expect(ask(rows, 1, [angle(0, 9), angle(90), angle(90)])).toEqual([3]);
  });

  it('goes on where the chosen tokens span all others', () => {
    expect(ask(Array(5).fill([1, 1]), 4, [[1, 0]])).toEqual([0, 1, 2, 3]);
  });
});

describe('random in deep layers', () => {
  it('keeps half of the rows from half of the depth on, drawn by the seed', () => {
    const drawn = (seed: number) => dropThrough(randomDeep({ seed }), 100, 8, 1);
    expect(drawn(1).kept).toEqual([...Array(4).fill(100), ...Array(4).fill(50)]);
    expect(drawn(1).drops[0]?.selection).toEqual(dropThrough(randomDeep({ seed: 1 }), 100, 8, 2).drops[0]?.selection);
    expect(drawn(1).drops[0]?.selection).not.toEqual(drawn(2).drops[0]?.selection);
  });
});

describe('down-sampling', () => {
  const pool = (h: number, w: number, kept: number, share = 1) => {
    const features = Array.from({ length: h * w }, (_, i) => [i]);
    const view = { ...viewOf({ t: 1, h, w }), tokens: h * w, share, features: () => matrixOf(...features) };
    return downsample({ prefillSparsity: 1 - kept / (h * w) }).prune?.select([view])[0];
  };

  it('takes the means of cells of equal area, each in the place of its center', () => {
    const quarter = pool(4, 4, 4);
    expect(indices([quarter ?? new Int32Array()])).toEqual([0, 2, 8, 10]);
    expect(quarter).toMatchObject({ rows: Float32Array.of(2.5, 4.5, 10.5, 12.5) });
  });

  it('reaches any budget: bands differ by one column', () => {
    expect(pool(3, 5, 7)).toMatchObject({ kept: Int32Array.of(0, 1, 3, 5, 6, 7, 8), rows: { length: 7 } });
    for (const [h, w] of [
      [3, 5],
      [1, 7],
      [7, 1],
      [6, 6],
    ] as const)
      for (let kept = 1; kept < h * w; kept++) expect(indices([pool(h, w, kept) as Selection])).toHaveLength(kept);
  });

  it('keeps what a resized picture has left', () => {
    expect(downsample({ prefillSparsity: 0.75 }).resize).toBe(0.25);
    // 6 tokens are left of 24, or 6 of 12.
    const method = downsample({ prefillSparsity: 0.75 });
    const view = (share: number) => ({
      ...{ ...viewOf({ t: 1, h: 2, w: 3 }), tokens: 6, share },
      features: () => matrixOf(...Array.from({ length: 6 }, (_, i) => [i])),
    });
    expect(method.prune?.select([view(0.25)])).toEqual([Int32Array.of(0, 1, 2, 3, 4, 5)]);
    expect(indicesOf(method.prune?.select([view(0.5)])[0])).toHaveLength(3);
  });

  it('resizes a picture where the family has fewer tokens for it, and no other', async () => {
    for (const [name, least] of [
      ['qwen_vl/qwen2.5-vl', 1],
      ['llava/llava-llama', 0],
    ] as const) {
      using model = await load(join(FIXTURES, name));
      const picture = { data: new Uint8Array(300 * 200 * 3).fill(90), width: 300, height: 200, channels: 3 as const };
      const ask = async (method: SparsityMethod) => {
        using chat = model.session({ method });
        const answer = chat.ask('What?', { images: [picture], maxTokens: 1 });
        await answer.text();
        return answer.stats?.tokens ?? { visualSeen: 0, visualKept: 0 };
      };
      const [whole, less] = [await ask(dense()), await ask(downsample({ prefillSparsity: 0.7 }))];
      const most = Math.round(0.3 * whole.visualSeen);
      expect([name, less.visualKept <= most, less.visualKept > most / 2]).toEqual([name, true, true]);
      expect(Number(less.visualSeen < whole.visualSeen)).toBe(least);
    }
  });
});
