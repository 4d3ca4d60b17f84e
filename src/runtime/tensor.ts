// The part of tfjs-core that this package uses, as types of its own. The published types would otherwise bring in tfjs-core's declarations,
// which need the DOM's types and do not compile without skipLibCheck.

/** A TensorFlow tensor, owned by its receiver. */
export interface Tensor {
  readonly id: number;
  readonly shape: number[];
  readonly dtype: string;
  readonly size: number;
  readonly isDisposed: boolean;
  /** Its elements, row-major, copied from where they are. `D` is what the caller knows of the type. */
  dataSync<D extends 'float32' | 'int32' = 'float32'>(): D extends 'int32' ? Int32Array : Float32Array;
  /** A second owner of the same memory. */
  clone(): this;
  /** Releases this owner's share. A second call does nothing. */
  dispose(): void;
}

type Numbers = Float32Array | Int32Array | readonly number[];

/** The functions of tfjs-core that are called; their documentation is tfjs's. */
export interface Tf {
  readonly version_core: string;
  findBackend(name: string): unknown;
  getBackend(): string;
  memory(): { readonly numTensors: number };
  tidy<T>(work: () => T): T;
  keep<T extends Tensor>(tensor: T): T;
  add(a: Tensor | Numbers, b: Tensor | Numbers | number): Tensor;
  mul(a: Tensor, b: Tensor | number): Tensor;
  sub(a: Tensor, b: Tensor): Tensor;
  concat(tensors: readonly Tensor[], axis?: number): Tensor;
  gather(x: Tensor, indices: Tensor, axis?: number): Tensor;
  reshape(x: Tensor, shape: readonly number[]): Tensor;
  sigmoid(x: Tensor): Tensor;
  tanh(x: Tensor): Tensor;
  squeeze(x: Tensor, axes?: readonly number[]): Tensor;
  slice(x: Tensor, begin: readonly number[], size?: readonly number[]): Tensor;
  tensor(values: Numbers, shape?: readonly number[], dtype?: 'float32' | 'int32'): Tensor;
  tensor1d(values: Numbers, dtype?: 'float32' | 'int32'): Tensor;
  tensor2d(values: Numbers, shape: readonly [number, number], dtype?: 'float32' | 'int32'): Tensor;
  transpose(x: Tensor, permutation?: readonly number[]): Tensor;
  zeros(shape: readonly number[], dtype?: 'float32' | 'int32'): Tensor;
}
