// A model with scripted answers: its logits select one id after the other. For specs about the stream and not
// about the model.

import type { VisionLanguageModel } from '../../src/models/model';
import { float32 } from '../../src/ops/run';

/** Each turn answers `text` (again from its start) and then stops. */
export function scripted(model: VisionLanguageModel, text: string): VisionLanguageModel {
  const [stop] = model.stopIds;
  if (stop === undefined) throw new Error('a model without a stop id');
  const ids = [...model.tokenizer.encode(text), stop];
  let at = 0;
  return {
    ...model,
    decoder: {
      ...model.decoder,
      forward: (x, batch, options) => {
        if (x.shape[0] !== 1) at = 0;
        return model.decoder.forward(x, batch, options);
      },
      scores: () => {
        const values = new Float32Array(model.decoder.config.vocabSize);
        values[ids[Math.min(at++, ids.length - 1)] ?? stop] = 30;
        return float32(values, [1, values.length]);
      },
    },
  };
}

/** The model; it calls `then` at the `step`-th call of `pace` in the `call`-th call of its tower or decoder (both count from 1). */
export function interrupted(
  model: VisionLanguageModel,
  { stage, call, step }: { stage: 'tower' | 'decoder'; call: number; step: number },
  then: () => void,
): VisionLanguageModel {
  let calls = 0;
  const counting = (pace: () => Promise<void>): (() => Promise<void>) => {
    const mine = ++calls;
    let steps = 0;
    return async () => {
      if (mine === call && ++steps === step) then();
      await pace();
    };
  };
  if (stage === 'tower') {
    return {
      ...model,
      encode: (medium, options) => model.encode(medium, { ...options, pace: counting(options.pace) }),
    };
  }
  const { forward } = model.decoder;
  return {
    ...model,
    decoder: {
      ...model.decoder,
      forward: (x, batch, options) => forward(x, batch, { ...options, pace: counting(options.pace) }),
    },
  };
}
