// Milliseconds of a turn's stages.

export interface StageTimes {
  image: number;
  tower: number;
  project: number;
  prefill: number;
  retrieve: number;
}

/** Runs `work` and adds its milliseconds to a stage. */
export async function timed<T>(times: StageTimes, stage: keyof StageTimes, work: () => Promise<T> | T): Promise<T> {
  const begin = performance.now();
  try {
    return await work();
  } finally {
    times[stage] += performance.now() - begin;
  }
}
