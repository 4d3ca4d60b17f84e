// Starts TensorFlow in this process: tfjs-node-gpu on the libtensorflow that set-up installed, and our ops on both. Does not know what the ops
// compute.

import { basename } from 'node:path';
import nodeUtil from 'node:util';
import { messageOf, SparseVilaError } from '../errors';
import { loadEngine, loadNative, polyfillUtil } from './compat';
import { cpuReason, gpuFacts, noDevice, requestedDevice, requestedLibrary } from './device';
import { checkThreadCounts, isaLevel, processor, tensorflowDefaults } from './machine';
import { guardModule } from './op_error';
import { type Installation, requireInstallation } from './setup';
import type { Tensor, Tf } from './tensor';

/** An attribute of an op. `type` is one of the binding's `TF_ATTR_…` numbers. */
export interface OpAttr {
  readonly name: string;
  readonly type: number;
  readonly value: string | number | boolean | readonly number[] | readonly boolean[] | null;
}

/** A tensor in the binding's form. `dtype` is TensorFlow's number for the type. */
export interface TensorMetadata {
  readonly id: number;
  readonly shape: number[];
  readonly dtype: number;
}

/** The part of tfjs-node's native binding that is called, for ops whose outputs have no dtype in tfjs. */
export interface Binding {
  executeOp(name: string, attrs: readonly OpAttr[], inputIds: readonly number[], outputs: number): TensorMetadata[];
  deleteTensor(id: number): void;
  getNumOfTensors(): number;
  readonly TF_Version: string;
  readonly TF_FLOAT: number;
  readonly TF_INT32: number;
  readonly TF_UINT8: number;
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_SHAPE: number;
}

/** The part of tfjs-node's backend that is called. */
export interface Backend {
  executeSingleOutput(name: string, attrs: readonly OpAttr[], inputs: readonly Tensor[]): Tensor;
  executeMultipleOutputs(name: string, attrs: readonly OpAttr[], inputs: readonly Tensor[], outputs: number): Tensor[];
  /** The tfjs tensor of an output of `binding.executeOp`; it owns the output from then on. */
  createOutputTensor(metadata: TensorMetadata): Tensor;
  binding: Binding;
  readonly isUsingGpuDevice: boolean;
}

/** What TensorFlow has requested from the device: copies, their bytes, and memory. */
export interface DeviceCounters {
  readonly toDevice: number;
  readonly toDeviceBytes: number;
  readonly toHost: number;
  readonly toHostBytes: number;
  readonly onDevice: number;
  readonly onDeviceBytes: number;
  readonly allocations: number;
  readonly bytes: number;
  readonly peakBytes: number;
}

/** The exports of our native module. Requiring it registers its ops. */
export interface NativeAddon {
  cpuFeatures(): Readonly<Record<string, boolean>>;
  /** Opens a file for reading; the id goes into SvPack and SvLoad. */
  openFile(path: string): number;
  /** A new file as a source that matrices can be packed into. Throws `ERR_OUTPUT_UNWRITABLE`. */
  createFile(path: string): number;
  /** Takes disk space for the first `bytes` bytes of a created file. Throws `ERR_OUTPUT_UNWRITABLE`. */
  reserve(source: number, bytes: number): void;
  /** The bytes of a typed array as a source; the array is kept alive until `release`. */
  openMemory(array: ArrayBufferView): number;
  release(source: number): void;
  /** The instruction-set level in use; with a level ('' = the best this processor has), changes it first. */
  isa(level?: string): string;
  /** Threads in use, the calling one included; with a number, changes them first. */
  threads(count?: number): number;
  scratchBytes(): number;
  /** Loads a device library, before tfjs-node is loaded; once per process. Throws the library's message if it cannot be used. */
  loadDevice(path: string): void;
  /** The loaded device library's report on its devices, or why it has none. */
  deviceReport(): string;
  /** Copies and memory of the loaded device since the process began; undefined when none is loaded. */
  deviceCounters(): DeviceCounters | undefined;
  /** Bytes or operations per second of this machine, at the level and threads in use. */
  measure(what: 'read' | 'f32' | 'bf16' | 'int8'): number;
}

/** preload.node: sets variables of the process, then loads TensorFlow's library. Once per process. */
interface PreloadModule {
  load(namesAndValues: readonly string[]): boolean;
}

export interface Runtime {
  /** The tfjs-core that the backend is registered with. */
  readonly tf: Tf;
  readonly backend: Backend;
  readonly native: NativeAddon;
  /** The device for ops that have a kernel there. */
  readonly device: 'CPU' | 'GPU';
  /** The device library's report on its devices, or why there is none; empty if no library was loaded. */
  readonly deviceReport: string;
  /** A name of the native modules that depends on their sources and the compiler. */
  readonly build: string;
}

let runtime: Runtime | undefined;

/**
 * TensorFlow with our ops, started at the first call; later calls return the same object. It runs on the device that SPARSEVILA_DEVICE selects
 * (`auto`, `cpu`, `gpu`, `standin`): auto is the GPU if set-up has built its library and there is one, else the CPU.
 *
 * Each thread of Node (the main one, and workers of `worker_threads`) has its own backend and tensors. Libraries, device, kernels and their
 * threads belong to the process: the first thread to start decides them, and one of our ops runs at a time.
 * @throws SparseVilaError `ERR_NOT_SET_UP` if set-up has not run for the present sources; `ERR_BAD_DEVICE`; `ERR_BAD_ISA`, `ERR_BAD_THREADS`;
 *   `ERR_NO_GPU` with the reason if the GPU was selected and cannot be used; `ERR_BAD_NATIVE` and `ERR_BACKEND` if a library does not load or
 *   TensorFlow does not start
 */
export function start(): Runtime {
  runtime ??= load();
  return runtime;
}

function load(): Runtime {
  const installation = requireInstallation();
  try {
    return startWith(installation);
  } catch (error) {
    if (error instanceof SparseVilaError) throw error;
    throw new SparseVilaError(
      'ERR_BACKEND',
      `Expected TensorFlow to start but it did not: ${messageOf(error)} Run \`npx sparsevila doctor\`.`,
      { cause: error },
    );
  }
}

function startWith(installation: Installation): Runtime {
  isaLevel(processor()); // Throws for an invalid SPARSEVILA_ISA, which the native code would ignore.
  checkThreadCounts();
  for (const [name, value] of Object.entries(tensorflowDefaults())) process.env[name] ??= value;
  polyfillUtil(nodeUtil as unknown as Record<string, unknown>);
  const { load: loadTensorflow } = loadNative(installation.native.preload) as PreloadModule;
  loadTensorflow(nativeVariables());
  // Our module comes before tfjs, whose binding selects its device when it is loaded.
  const native = guardModule(loadNative(installation.native.addon) as NativeAddon);
  const deviceReport = loadDevice(native, installation);
  const core = loadEngine(installation.engine, installation.native.tfjsBinding);
  // Errors that a caller's own function throws inside `tidy` are not converted.
  const tf = { ...guardModule(core), tidy: core.tidy };
  const backend = core.findBackend('tensorflow') as Backend;
  // Every op of tfjs and of ours goes through this object.
  backend.binding = guardModule(backend.binding, (name, [op]) => (name === 'executeOp' ? String(op) : name));
  const device = backend.isUsingGpuDevice ? 'GPU' : 'CPU';
  const requested = requestedDevice();
  if (device === 'CPU' && (requested === 'gpu' || requested === 'standin')) {
    throw noDevice(requested, cpuReason(requested, gpuFacts(installation.libtensorflow), deviceReport));
  }
  return { tf, backend, native, device, deviceReport, build: basename(installation.native.folder) };
}

/** The variables that native code reads, [name, value, …]; a worker thread's `process.env` is a copy, which only Node sees. */
function nativeVariables(): string[] {
  const isNative = (name: string) => /^(SPARSEVILA|TF|ONEDNN|DNNL|CUDA)_/.test(name);
  return Object.entries(process.env).flatMap(([name, value = '']) => (isNative(name) ? [name, value] : []));
}

/** Loads the selected device library and returns its report; empty if there is none to load. */
function loadDevice(native: NativeAddon, { libtensorflow }: Installation): string {
  const requested = requestedDevice();
  const library = requestedLibrary(requested, libtensorflow);
  if (library === undefined) {
    if (requested === 'auto' || requested === 'cpu') return '';
    throw noDevice(requested, cpuReason(requested, gpuFacts(libtensorflow), ''));
  }
  try {
    native.loadDevice(library.path);
    return native.deviceReport();
  } catch (error) {
    if (requested === 'auto') return messageOf(error); // The CPU is used; doctor reports the reason.
    throw noDevice(requested, {
      why: messageOf(error),
      advice: `Remove ${library.folder} and run \`npx sparsevila setup\`.`,
    });
  }
}
