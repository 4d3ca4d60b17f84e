// A separate program for doctor: starts TensorFlow, adds two numbers, prints its findings as JSON. A crash in native code ends this process
// and not doctor's.

import { messageOf } from '../errors';
import { start } from './start';

/** What the program prints on its last line of stdout. */
export type Probe =
  | {
      readonly ok: true;
      readonly tensorflow: string;
      readonly tfjs: string;
      readonly device: 'CPU' | 'GPU';
      readonly deviceReport: string;
    }
  | { readonly ok: false; readonly message: string };

function probe(): Probe {
  try {
    const { tf, backend, device, deviceReport } = start();
    const [sum] = tf.add([40], [2]).dataSync();
    if (sum !== 42) return { ok: false, message: `Expected 40 + 2 to be 42 but TensorFlow answered ${sum}.` };
    return { ok: true, tensorflow: backend.binding.TF_Version, tfjs: tf.version_core, device, deviceReport };
  } catch (error) {
    return { ok: false, message: messageOf(error) };
  }
}

if (require.main === module) process.stdout.write(`\n${JSON.stringify(probe())}\n`);
