// Decides whether an embedded ICC profile is sRGB, in which case the pixels are used as stored. Knows nothing about pixels: sharp converts
// colors by lcms.
// Source: ICC.1:2022 (tag table §7.3, curveType §10.6, parametricCurveType §10.18), IEC 61966-2-1 (sRGB).

/** sRGB colorants adapted to D50, XYZ, as the common sRGB profiles hold them. */
const COLORANTS = {
  rXYZ: [0.4361, 0.2225, 0.0139],
  gXYZ: [0.3851, 0.7169, 0.0971],
  bXYZ: [0.1431, 0.0606, 0.7141],
} as const;
const CURVES = ['rTRC', 'gTRC', 'bTRC'] as const;
const COLORANT_TOLERANCE = 0.002;
/** Largest difference in linear light; one 8-bit step is 0.0003 near black and 0.009 near white. A plain 2.2 gamma is off by 0.009. */
const CURVE_TOLERANCE = 0.001;
const PROBES = 64;

/**
 * True if `profile` is an RGB matrix/curve profile with the colorants and curves of sRGB.
 *
 * lcms converts such a profile through a table, which changes about 0.3 % of the samples by one, although the conversion is meant to be the
 * identity; Pillow, which ignores profiles, leaves them unchanged. Never throws: an unreadable profile is not sRGB.
 * @param profile the ICC profile, bytes as embedded
 */
export function isSrgbProfile(profile: Uint8Array): boolean {
  const view = new DataView(profile.buffer, profile.byteOffset, profile.byteLength);
  try {
    const tags = readTags(view);
    // A lookup table (A2B0) takes precedence over matrix and curves, so these do not decide what the profile does.
    if (ascii(view, 16) !== 'RGB ' || tags.has('A2B0') || tags.has('D2B0')) return false;
    for (const [tag, expected] of Object.entries(COLORANTS)) {
      const at = tags.get(tag);
      if (at === undefined || ascii(view, at) !== 'XYZ ') return false;
      if (expected.some((v, i) => Math.abs(s15Fixed16(view, at + 8 + 4 * i) - v) > COLORANT_TOLERANCE)) return false;
    }
    return CURVES.every((tag) => {
      const at = tags.get(tag);
      return at !== undefined && isSrgbCurve(readCurve(view, at));
    });
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** Whether the profile describes colors of `space`, by its signature at byte 16. Never throws. */
export function isProfileOf(profile: Uint8Array, space: 'RGB ' | 'GRAY' | 'CMYK'): boolean {
  return Buffer.from(profile.buffer, profile.byteOffset, profile.byteLength).toString('latin1', 16, 20) === space;
}

/** The sRGB transfer function: encoded 0..1 to linear light 0..1. */
function srgbToLinear(x: number): number {
  return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
}

function isSrgbCurve(curve: ((x: number) => number) | undefined): boolean {
  if (curve === undefined) return false;
  for (let i = 0; i <= PROBES; i++) {
    if (!(Math.abs(curve(i / PROBES) - srgbToLinear(i / PROBES)) <= CURVE_TOLERANCE)) return false;
  }
  return true;
}

/** The curve at byte `at`: a sampled `curv` of two or more points, or a `para` of type 3 (gamma with a linear toe). */
function readCurve(view: DataView, at: number): ((x: number) => number) | undefined {
  const type = ascii(view, at);
  if (type === 'curv') {
    const count = view.getUint32(at + 8);
    if (count < 2 || at + 12 + 2 * count > view.byteLength) return undefined;
    const point = (i: number) => view.getUint16(at + 12 + 2 * i) / 65535;
    return (x) => {
      const position = x * (count - 1);
      const i = Math.min(count - 2, Math.floor(position));
      return point(i) + (point(i + 1) - point(i)) * (position - i);
    };
  }
  if (type !== 'para' || view.getUint16(at + 8) !== 3) return undefined;
  const parameter = (i: number) => s15Fixed16(view, at + 12 + 4 * i);
  const [g, a, b, c, d] = [parameter(0), parameter(1), parameter(2), parameter(3), parameter(4)];
  return (x) => (x >= d ? (a * x + b) ** g : c * x);
}

/** A map from tag signatures to byte offsets. */
function readTags(view: DataView): Map<string, number> {
  const tags = new Map<string, number>();
  const count = Math.min(view.getUint32(128), 200);
  for (let i = 0; i < count; i++) tags.set(ascii(view, 132 + 12 * i), view.getUint32(136 + 12 * i));
  return tags;
}

function ascii(view: DataView, at: number): string {
  return String.fromCharCode(view.getUint8(at), view.getUint8(at + 1), view.getUint8(at + 2), view.getUint8(at + 3));
}

function s15Fixed16(view: DataView, at: number): number {
  return view.getInt32(at) / 65536;
}
