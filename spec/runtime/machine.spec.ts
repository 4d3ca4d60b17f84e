// Parsing of /proc and /sys, on texts of other machines.
import {
  appleFeatures,
  checkThreadCounts,
  cores,
  cpuQuota,
  isaLevel,
  memoryBytes,
  processor,
} from '../../src/runtime/machine';

const AVX2 = ['avx2', 'fma', 'f16c'];
const AVX512 = [...AVX2, 'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'];

describe('isaLevel', () => {
  test.each([
    [[], 'portable'],
    [['asimd'], 'neon'],
    [['asimd', 'asimddp'], 'dotprod'],
    [['asimd', 'i8mm', 'bf16'], 'neon'],
    [['asimd', 'asimddp', 'i8mm'], 'i8mm'],
    [['asimd', 'asimddp', 'i8mm', 'bf16'], 'bf16'],
    [['avx2'], 'portable'],
    [AVX2, 'avx2'],
    [[...AVX2, 'avx512f'], 'avx2'],
    [AVX512, 'avx512'],
  ])('the best level for %j is %s', (features, level) => {
    expect(isaLevel({ features, vendor: undefined }, {})).toBe(level);
  });

  test('the bf16 dot product is the default on AMD only, and can be requested', () => {
    const features = [...AVX512, 'avx512_bf16'];
    expect(isaLevel({ features, vendor: 'AuthenticAMD' }, {})).toBe('avx512bf16');
    expect(isaLevel({ features, vendor: 'GenuineIntel' }, {})).toBe('avx512');
    expect(isaLevel({ features, vendor: 'GenuineIntel' }, { SPARSEVILA_ISA: 'avx512bf16' })).toBe('avx512bf16');
  });

  test('SPARSEVILA_ISA can select a lower level, but not a higher or unknown one', () => {
    expect(isaLevel({ features: AVX512, vendor: undefined }, { SPARSEVILA_ISA: 'avx2' })).toBe('avx2');
    expect(() => isaLevel({ features: AVX2, vendor: undefined }, { SPARSEVILA_ISA: 'avx512' })).toThrow(
      'one of portable, avx2 for SPARSEVILA_ISA',
    );
    expect(isaLevel({ features: ['asimd', 'asimddp'], vendor: undefined }, { SPARSEVILA_ISA: 'neon' })).toBe('neon');
    expect(() => isaLevel({ features: ['asimd', 'asimddp'], vendor: undefined }, { SPARSEVILA_ISA: 'avx2' })).toThrow(
      'one of portable, neon, dotprod for SPARSEVILA_ISA',
    );
    expect(() => isaLevel({ features: AVX512, vendor: undefined }, { SPARSEVILA_ISA: 'sse9' })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_ISA' }),
    );
  });
});

describe('thread counts', () => {
  test.each([
    {},
    { SPARSEVILA_THREADS: '1', TF_NUM_INTRAOP_THREADS: '0', TF_NUM_INTEROP_THREADS: '8' },
    { SPARSEVILA_THREADS: '256', TF_NUM_INTRAOP_THREADS: '1024' },
    { SPARSEVILA_THREADS: '', TF_NUM_INTRAOP_THREADS: '' },
  ])('%j can be', (env) => {
    expect(() => checkThreadCounts(env)).not.toThrow();
  });

  test.each(
    ['SPARSEVILA_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'].flatMap((name) =>
      ['abc', '-3', '100000', '1.5', '2 ', '4294967297', `1${'0'.repeat(400)}`].map((value) => [name, value]),
    ),
  )('%s=%s is refused by name', (name, value) => {
    const message = expect.stringContaining(`for ${name} but received "${value.slice(0, 9)}`);
    expect(() => checkThreadCounts({ [name]: value })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_THREADS', message }),
    );
  });
});

test('processor reads the model and the features we use', () => {
  const cpuinfo = 'processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 fma f16c avx512_bf16x avx\n';
  expect(processor(cpuinfo)).toMatchObject({ model: 'Some CPU @ 2 GHz', features: ['avx2', 'fma', 'f16c'] });
  expect(processor('Features\t: fp asimd evtstrm\n').features).toEqual(['asimd']);
});

test('the features of Apple silicon are those of its sysctl that are 1', () => {
  const text = 'hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\nhw.optional.arm.FEAT_BF16: 1\n';
  expect(appleFeatures(text)).toEqual(['asimd', 'asimddp', 'bf16']);
  expect(appleFeatures('')).toEqual(['asimd']);
});

describe('cpuQuota', () => {
  const files = (contents: Record<string, string>) => (path: string) => contents[path];
  test.each([
    [{ '/sys/fs/cgroup/cpu.max': '150000 100000' }, 1.5],
    [{ '/sys/fs/cgroup/cpu.max': 'max 100000' }, undefined],
    [{ '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '200000', '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000' }, 2],
    [{ '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1', '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000' }, undefined],
    [{}, undefined],
  ])('of %j is %j', (contents, quota) => {
    expect(cpuQuota(files(contents))).toBe(quota);
  });
});

test('this machine has a core and some memory', () => {
  expect(cores()).toBeGreaterThanOrEqual(1);
  expect(Number.isInteger(cores())).toBe(true);
  expect(memoryBytes()).toBeGreaterThan(1e8);
});
