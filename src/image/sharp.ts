// Loads sharp at its first use: its native part is in optional packages, which some installations omit (`--omit=optional`). Everything that
// needs no picture works without it.

import type Sharp from 'sharp';
import { requirePackage } from '../packages';

let loaded: typeof Sharp | undefined;

/** sharp's function, without its static members. @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` if it is missing or does not load */
export const sharp = ((...args: Parameters<typeof Sharp>) => requireSharp()(...args)) as typeof Sharp;

/** Checks for sharp before other work begins. @throws SparseVilaError `ERR_PACKAGE_INCOMPLETE` if it is missing or does not load */
export function requireSharp(): typeof Sharp {
  loaded ??= requirePackage<typeof Sharp>('sharp');
  return loaded;
}
