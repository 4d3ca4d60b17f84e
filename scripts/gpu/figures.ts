// What a run on a GPU is expected to give: for each figure where it lies in the results of first.sh or run.sh, what was predicted from
// the machine code before any run (a prediction that misses by 1.5x is to be explained before anything is tuned), and the bar.

export interface Figure {
  readonly name: string;
  /** Step of the run, then the members of its result; `visual=…,share=…` names a context of the decode step. */
  readonly path: readonly string[];
  readonly unit: string;
  readonly predicted?: number;
  /** The measured value must be at least, or at most, this. */
  readonly least?: number;
  readonly most?: number;
}

const FIRST_ROW = 'int4 4096x11008, 1 row';
const SECOND_ROW = 'int4 3584x18944, 1 row';
const MANY_ROWS = 'int4 4096x11008, 4096 rows';
const ATTENTION = 'attention, 10 % of 32768 rows';
const SAMPLE = 'sample of 152064';

/** The decode step after `visual` rows of which a layer reads `percent`, in a graph, and launch by launch. */
function decodeStep(visual: number, percent: number, predicted: number, most?: number): Figure[] {
  const path = ['step', 'contexts', `visual=${visual},share=${percent / 100}`];
  const rows = visual === 0 ? 'an empty context' : `${percent} % of ${visual} visual rows`;
  return [
    {
      name: `7B decode step, ${rows}, in a graph`,
      path: [...path, 'graph_us'],
      unit: 'us',
      predicted,
      ...(most !== undefined && { most }),
    },
    { name: `7B decode step, ${rows}, launch by launch`, path: [...path, 'us'], unit: 'us' },
  ];
}

export const FIGURES: readonly Figure[] = [
  { name: 'copy', path: ['bench', 'limits', 'copy_tb_s'], unit: 'TB/s', predicted: 4.3 },
  { name: 'bf16 product', path: ['bench', 'limits', 'bf16_tflop_s'], unit: 'TFLOP/s', predicted: 790 },
  { name: 'W4A16 4096x11008, 1 row', path: ['bench', FIRST_ROW, 'us'], unit: 'us', predicted: 13 },
  { name: '… of the copy', path: ['bench', FIRST_ROW, 'of_copy'], unit: '%', predicted: 0.43, least: 0.6 },
  { name: "… torch's int4 product", path: ['bench', `torch ${FIRST_ROW}`, 'us'], unit: 'us' },
  { name: 'W4A16 3584x18944, 1 row', path: ['bench', SECOND_ROW, 'us'], unit: 'us', predicted: 19 },
  { name: '… of the copy', path: ['bench', SECOND_ROW, 'of_copy'], unit: '%', predicted: 0.44, least: 0.6 },
  { name: "… torch's int4 product", path: ['bench', `torch ${SECOND_ROW}`, 'us'], unit: 'us' },
  { name: 'W4A16 4096x11008, 4096 rows', path: ['bench', MANY_ROWS, 'us'], unit: 'us', predicted: 2250 },
  { name: '… of the bf16 product', path: ['bench', MANY_ROWS, 'of_bf16'], unit: '%', predicted: 0.21, least: 0.4 },
  { name: 'attention, 10 % of 32768 rows', path: ['bench', ATTENTION, 'us'], unit: 'us', predicted: 13 },
  { name: '… of the copy', path: ['bench', ATTENTION, 'of_copy'], unit: '%', predicted: 0.13 },
  { name: 'attention, all 32768 rows', path: ['bench', ATTENTION, 'all_us'], unit: 'us', predicted: 50 },
  { name: "… torch's, all rows", path: ['bench', ATTENTION, 'torch_all_us'], unit: 'us' },
  { name: "… torch's time over ours for 10 %", path: ['bench', ATTENTION, 'times_torch'], unit: 'x', least: 6 },
  { name: 'sample, greedy', path: ['bench', SAMPLE, 'greedy_us'], unit: 'us', predicted: 6 },
  { name: 'sample, top-p', path: ['bench', SAMPLE, 'top_p_us'], unit: 'us', predicted: 35 },
  { name: 'sample, top-k and top-p', path: ['bench', SAMPLE, 'top_k_top_p_us'], unit: 'us', predicted: 50 },
  ...decodeStep(0, 100, 2300, 2000),
  ...decodeStep(8192, 100, 2750),
  ...decodeStep(8192, 10, 2400),
  ...decodeStep(32768, 100, 3700),
  ...decodeStep(32768, 10, 2600),
  ...decodeStep(131072, 100, 6400),
  ...decodeStep(131072, 10, 3000),
  {
    name: 'end to end, 7B dense decode at 2048',
    path: ['decode', 'decodeTokPerS'],
    unit: 'tok/s',
  },
  {
    name: 'end to end, 7B sparse decode at 2048',
    path: ['decode', 'sparseDecodeTokPerS'],
    unit: 'tok/s',
  },
  { name: 'end to end, 7B prefill of 2048', path: ['decode', 'prefillTokPerS'], unit: 'tok/s' },
  { name: 'a call of an op', path: ['device', 'callMicroseconds'], unit: 'us' },
  { name: 'copy to the device', path: ['device', 'toDeviceGBs'], unit: 'GB/s', predicted: 6 },
  { name: 'copy to the host', path: ['device', 'toHostGBs'], unit: 'GB/s', predicted: 4.5 },
];
