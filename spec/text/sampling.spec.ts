// Sampling: greedy, the order of the filters against cases worked by hand, distributions under a fixed seed, and every refusal.
import { readJson } from '../../src/json';
import { float32 } from '../../src/ops/run';
import { sample } from '../../src/ops/sample';
import { parseGenerationConfig } from '../../src/text/generation_config';
import { uniform } from '../../src/text/random';
import { createSampler, type SamplingOptions } from '../../src/text/sampling';
import { sampleReference } from '../../testing/ops/references/sample';

const f32 = (...values: number[]): Float32Array => Float32Array.from(values);

/** Share of each id among `draws` samples of the same logits. */
function shares(options: SamplingOptions, logits: Float32Array, draws: number, history: number[] = []): number[] {
  const sampler = createSampler({ seed: 17, ...options });
  const counts = Array.from(logits, () => 0);
  for (let i = 0; i < draws; i++) {
    const id = sampler.sample(logits, history);
    counts[id] = (counts[id] ?? 0) + 1;
  }
  return counts.map((count) => count / draws);
}

/** The ids that can be sampled. */
function support(options: SamplingOptions, logits: Float32Array, history: number[] = []): number[] {
  return shares(options, logits, 3000, history).flatMap((share, id) => (share > 0 ? [id] : []));
}

/** transformers' filters, written plainly with sorting: probabilities after temperature, top-k, top-p. */
function reference(logits: Float32Array, temperature: number, topK: number, topP: number): number[] {
  const scores = Array.from(logits, (logit) => logit / temperature);
  const kth = topK > 0 ? ([...scores].sort((a, b) => b - a)[Math.min(topK, scores.length) - 1] ?? 0) : -Infinity;
  const highest = Math.max(...scores);
  const weights = scores.map((score) => (score < kth ? 0 : Math.exp(score - highest)));
  const mass = weights.reduce((sum, weight) => sum + weight, 0);
  const order = weights.map((_, id) => id).sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0) || a - b);
  let before = 0;
  const kept = order.map((id) => {
    const keep = topP === 1 || before < topP * mass;
    before += weights[id] ?? 0;
    return keep ? id : -1;
  });
  const rest = weights.map((weight, id) => (kept.includes(id) ? weight : 0));
  const left = rest.reduce((sum, weight) => sum + weight, 0);
  return rest.map((weight) => weight / left);
}

describe('greedy', () => {
  it('takes the highest logit, the lowest id on ties', () => {
    const sampler = createSampler({});
    expect(sampler.sample(f32(1, 3, 2), [])).toBe(1);
    expect(sampler.sample(f32(-1, 3, 3, 3), [])).toBe(1);
    expect(sampler.sample(f32(-Infinity, -Infinity, -5), [])).toBe(2);
    expect(createSampler({ temperature: 0, topK: 5, topP: 0.5 }).sample(f32(0, 0), [])).toBe(0);
  });

  it('applies the repetition penalty: divides positive logits, multiplies negative ones, once per distinct id', () => {
    const sampler = createSampler({ repetitionPenalty: 2 });
    expect(sampler.sample(f32(3, 2, 1), [0])).toBe(1);
    expect(sampler.sample(f32(3, 1.4, 1), [0, 0, 0, 0])).toBe(0);
    expect(sampler.sample(f32(-1, -1.5), Int32Array.of(0))).toBe(1);
    const logits = f32(3, 2);
    sampler.sample(logits, [0]);
    expect(logits).toEqual(f32(3, 2));
  });

  it('refuses broken logits, naming the id', () => {
    const fails = (logits: Float32Array, message: RegExp): void => {
      for (const options of [{}, { temperature: 1 }, { temperature: 1, topK: 1, topP: 0.5 }]) {
        expect(() => createSampler(options).sample(logits, [])).toThrow(
          expect.objectContaining({ code: 'ERR_LOGITS_INVALID', message: expect.stringMatching(message) }),
        );
      }
    };
    fails(f32(1, 2, Number.NaN, 3), /NaN at id 2/);
    fails(f32(Number.NaN), /NaN at id 0/);
    fails(f32(1, Infinity), /\+Infinity at id 1/);
    fails(f32(-Infinity, -Infinity), /none among 2/);
    fails(f32(), /none among 0/);
  });
});

describe('the order of transformers', () => {
  // Probabilities 0.5, 0.25, 0.15, 0.1.
  const logits = f32(Math.log(0.5), Math.log(0.25), Math.log(0.15), Math.log(0.1));

  it('top-p keeps the fewest that reach p, and at least one', () => {
    expect(support({ temperature: 1, topP: 0.74 }, logits)).toEqual([0, 1]);
    expect(support({ temperature: 1, topP: 0.76 }, logits)).toEqual([0, 1, 2]);
    expect(support({ temperature: 1, topP: 0.01 }, logits)).toEqual([0]);
    expect(support({ temperature: 1, topP: 1 }, logits)).toEqual([0, 1, 2, 3]);
  });

  it.each([5e-324, 1e-60, 1e-44])('top-p %s, which f32 or a kernel takes for 0, keeps the most probable', (topP) => {
    const one = f32(1, 1.5, 1.4);
    expect(support({ temperature: 5, topP }, one)).toEqual([1]);
    expect(support({ temperature: 5, topP, repetitionPenalty: 1.01 }, one)).toEqual([1]);
    const draw = createSampler({ temperature: 5, topP, seed: 1 }).draw();
    if (draw === undefined) throw new Error('expected a draw without a penalty');
    const row = float32(one, [3]);
    const drawn = sample(row, draw);
    expect(drawn.dataSync()[0]).toBe(1);
    for (const tensor of [row, drawn]) tensor.dispose();
  });

  it('top-k keeps k, and whatever equals the k-th', () => {
    expect(support({ temperature: 1, topK: 1 }, logits)).toEqual([0]);
    expect(support({ temperature: 1, topK: 3 }, logits)).toEqual([0, 1, 2]);
    expect(support({ temperature: 1, topK: 99 }, logits)).toEqual([0, 1, 2, 3]);
    expect(support({ temperature: 1, topK: 0 }, logits)).toEqual([0, 1, 2, 3]);
    expect(support({ temperature: 1, topK: 2 }, f32(1, 2, 1, 1))).toEqual([0, 1, 2, 3]);
  });

  it('top-k comes before top-p: the mass that top-p sees is that of the survivors', () => {
    // After top-k 2 the first has 2/3 of the mass, so 0.6 is reached by it alone; of the whole it has 1/2 and would need the second.
    expect(support({ temperature: 1, topK: 2, topP: 0.6 }, logits)).toEqual([0]);
    expect(support({ temperature: 1, topP: 0.6 }, logits)).toEqual([0, 1]);
  });

  it('temperature comes before top-p', () => {
    // At temperature 0.5 the weights are 0.25, 0.0625, 0.0225, 0.01: the first has 0.725 of them.
    expect(support({ temperature: 0.5, topP: 0.7 }, logits)).toEqual([0]);
    expect(support({ temperature: 1, topP: 0.7 }, logits)).toEqual([0, 1]);
  });

  it('the repetition penalty comes before the temperature, on the raw logits', () => {
    // 2 / 2 = 1 beside 1.5: the penalized id is second, so top-k 1 leaves the other.
    expect(support({ temperature: 0.1, topK: 1, repetitionPenalty: 2 }, f32(2, 1.5), [0])).toEqual([1]);
  });

  it('breaks ties at the edge of top-p by the lower id', () => {
    expect(support({ temperature: 1, topP: 0.5 }, f32(0, 0, 0, 0))).toEqual([0, 1]);
  });

  it('never draws what has no probability', () => {
    expect(support({ temperature: 1 }, f32(-Infinity, 0, -Infinity, 0))).toEqual([1, 3]);
    expect(support({ temperature: 1, topK: 3 }, f32(-Infinity, 0, -Infinity, 0))).toEqual([1, 3]);
    expect(support({ temperature: 1e-6, topP: 0.9 }, f32(0, 1, 0.5))).toEqual([1]);
  });
});

describe('draws', () => {
  const draws = 40000;
  const near = (seen: number[], expected: number[]): void => {
    seen.forEach((share, id) => {
      const p = expected[id] ?? 0;
      // Five standard errors of a share; exactly zero where the probability is zero.
      expect(Math.abs(share - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / draws));
    });
  };

  it.each([
    [{ temperature: 1 }],
    [{ temperature: 0.7, topK: 5 }],
    [{ temperature: 1.5, topP: 0.8 }],
    [{ temperature: 0.9, topK: 7, topP: 0.6 }],
  ])('follow the distribution of %j', (options: { temperature: number; topK?: number; topP?: number }) => {
    const random = uniform(5);
    const logits = Float32Array.from({ length: 12 }, () => 4 * random() - 2);
    near(shares(options, logits, draws), reference(logits, options.temperature, options.topK ?? 0, options.topP ?? 1));
  });

  it('are those of ops/sample, number by number', () => {
    const random = uniform(23);
    for (let trial = 0; trial < 200; trial++) {
      const step = trial % 2 === 0 ? 2 ** -20 : 0.5;
      const logits = Float32Array.from({ length: 1 + (trial % 50) }, () => step * Math.round((8 * random()) / step));
      const options = {
        temperature: 0.2 + 2 * random(),
        topK: Math.floor(random() * 20),
        topP: 0.05 + 0.95 * random(),
      };
      const draw = { ...options, uniform: uniform(trial)() };
      expect(createSampler({ ...options, seed: trial }).sample(logits, [])).toBe(sampleReference(logits, draw));
    }
  });

  it('allow the same ids as plain sorting, for many random logits', () => {
    const random = uniform(11);
    for (let trial = 0; trial < 60; trial++) {
      const logits = Float32Array.from({ length: 1 + Math.floor(random() * 40) }, () => Math.round(6 * random()) / 2);
      const options = { temperature: 0.5 + random(), topK: Math.floor(random() * 20), topP: 0.05 + 0.95 * random() };
      const allowed = reference(logits, options.temperature, options.topK, options.topP);
      const sampler = createSampler({ ...options, seed: trial });
      for (let i = 0; i < 50; i++) expect(allowed[sampler.sample(logits, [])]).toBeGreaterThan(0);
    }
  });

  it('are the same when the op draws: same seed, same ids', () => {
    const random = uniform(23);
    const settings: SamplingOptions[] = [
      {},
      { temperature: 1 },
      { temperature: 0.7, topK: 20, topP: 0.8 },
      { temperature: 1.3, topP: 0.5 },
    ];
    for (const options of settings) {
      const [here, there] = [createSampler({ ...options, seed: 9 }), createSampler({ ...options, seed: 9 })];
      for (let i = 0; i < 40; i++) {
        const logits = Float32Array.from({ length: 203 }, () => 8 * random() - 4);
        const draw = there.draw();
        if (draw === undefined) throw new Error('nothing for the op to draw');
        const row = float32(logits, [1, logits.length]);
        const id = sample(row, draw);
        expect(id.dataSync()[0]).toBe(here.sample(logits, []));
        row.dispose();
        id.dispose();
      }
    }
  });

  it('require the logits under a repetition penalty', () => {
    expect(createSampler({ temperature: 1, repetitionPenalty: 1.1 }).draw()).toBeUndefined();
  });

  it('repeat with the seed, differ without one, and report the seed', () => {
    const logits = new Float32Array(1000);
    const run = (options: SamplingOptions): number[] => {
      const sampler = createSampler({ temperature: 1, ...options });
      return Array.from({ length: 20 }, () => sampler.sample(logits, []));
    };
    expect(run({ seed: 3 })).toEqual(run({ seed: 3 }));
    expect(run({ seed: 3 })).not.toEqual(run({ seed: 4 }));
    expect(run({})).not.toEqual(run({}));
    const { seed } = createSampler({ temperature: 1 });
    expect(run({ seed })).toEqual(run({ seed }));
  });

  it('take logits of another length without leftovers', () => {
    const sampler = createSampler({ temperature: 1, topK: 2, topP: 0.99, repetitionPenalty: 1.1, seed: 1 });
    for (const size of [10, 3, 50, 1]) expect(sampler.sample(new Float32Array(size), [0])).toBeLessThan(size);
  });
});

describe('options', () => {
  it.each([
    [{ temperature: -1 }, /at least 0 for temperature, received -1/],
    [{ temperature: Number.NaN }, /temperature, received NaN/],
    [{ temperature: '1' }, /temperature, received "1"/],
    [{ temperature: 1, topK: 1.5 }, /topK, received 1.5/],
    [{ temperature: 1, topK: -1 }, /topK, received -1/],
    [{ temperature: 1, topP: 0 }, /topP, received 0/],
    [{ temperature: 1, topP: 1.01 }, /topP, received 1.01/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty, received 0/],
    [{ seed: -1 }, /seed, received -1/],
    [{ seed: 0.5 }, /seed, received 0.5/],
    [{ top_k: 5 }, /temperature, topK, topP, repetitionPenalty, seed, received top_k/],
    [{ topK: 5 }, /greedy/],
    [{ topP: 0.5 }, /greedy/],
  ])('refuses %j', (options, message) => {
    expect(() => createSampler(options as SamplingOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION_INVALID', message: expect.stringMatching(message) }),
    );
  });

  it.each([[3], [-1], [0.5]])('refuses id %d in the history of 3 logits', (id) => {
    expect(() => createSampler({ repetitionPenalty: 1.1 }).sample(f32(1, 2, 3), [id])).toThrow(
      /ids from 0 to 2 in the history/,
    );
  });
});

describe('parseGenerationConfig', () => {
  it('reads the packaged model', () => {
    const file = `${__dirname}/../../../assets/tiny-nvila/llm/generation_config.json`;
    expect(parseGenerationConfig(readJson(file), file)).toEqual({
      sampling: {},
      stopIds: [426, 424],
      maxNewTokens: 96,
    });
  });

  it('fills in the defaults of transformers when sampling, and is greedy otherwise', () => {
    expect(parseGenerationConfig({ do_sample: true, eos_token_id: 2, temperature: 0.6 }, 'f')).toEqual({
      sampling: { temperature: 0.6, topK: 50, topP: 1 },
      stopIds: [2],
    });
    const greedy = { do_sample: false, temperature: 0.6, top_p: 0.9, repetition_penalty: 1.05, eos_token_id: null };
    expect(parseGenerationConfig(greedy, 'f')).toEqual({ sampling: { repetitionPenalty: 1.05 }, stopIds: [] });
    for (const config of [{ do_sample: true }, greedy]) createSampler(parseGenerationConfig(config, 'f').sampling);
  });

  it('names file and key of what is wrong', () => {
    expect(() => parseGenerationConfig({ eos_token_id: [1, 'x'] }, 'g.json')).toThrow(
      /g\.json: expected a token id .*"eos_token_id"/,
    );
    expect(() => parseGenerationConfig({ max_new_tokens: 0 }, 'g.json')).toThrow(/"max_new_tokens", received 0/);
    expect(() => parseGenerationConfig({ do_sample: 'yes' }, 'g.json')).toThrow(/true or false for "do_sample"/);
    expect(() => parseGenerationConfig({ num_beams: 4 }, 'g.json')).toThrow(/1 or null for "num_beams", received 4/);
  });

  it('leaves greedy decoding alone where only sampling is impossible', () => {
    const odd = [
      { top_p: 2 },
      { top_k: 'x' },
      { temperature: -1 },
      { top_p: Number.NaN },
      { min_p: 0.1 },
      { typical_p: 0.9 },
    ];
    for (const settings of odd) {
      const { sampling } = parseGenerationConfig({ do_sample: true, ...settings }, 'g.json');
      expect(() => createSampler({}, sampling)).toThrow(/^g\.json: .*Ask with a temperature/);
      expect(createSampler({ temperature: 0 }, sampling).sample(f32(1, 3, 2), [])).toBe(1);
    }
  });

  it('reads 0 for top_p as one token and -1 for top_k as all', () => {
    const one = parseGenerationConfig({ do_sample: true, temperature: 5, top_p: 0 }, 'g.json').sampling;
    expect(one).toMatchObject({ temperature: 5, topK: 50, topP: 2 ** -126 });
    const sampler = createSampler({ seed: 1 }, one);
    for (let i = 0; i < 50; i++) expect(sampler.sample(f32(1, 1.5, 1.4), [])).toBe(1);
    expect(parseGenerationConfig({ do_sample: true, top_k: -1 }, 'g.json').sampling).toMatchObject({ topK: 0 });
  });
});
