// Labels above the panels of a sheet that say which part of a medium it shows, for media with several sheets.

import type { Sheet } from './sheets';

/** Empty for an image that has only one sheet. */
export function imageLabel(name: string, sheets: readonly Sheet[], { planes }: Sheet): string {
  if (sheets.length === 1 && planes.length === 1) return '';
  return planes.length > 1 ? `${name}: ${planes.length} tiles` : `${name}: the whole picture`;
}

/** The range of frames that a sheet of a video represents: from its own to that of the next sheet. */
export function videoLabel(name: string, sheets: readonly Sheet[], { frame }: Sheet, frames: number): string {
  const next = Math.min(frames, ...sheets.map((sheet) => sheet.frame).filter((other) => other > frame));
  return next === frame + 1
    ? `${name}: frame ${frame + 1} of ${frames}`
    : `${name}: frames ${frame + 1} to ${next} of ${frames}, drawn on the first of them`;
}

/** Printed once for a video of which only some sheets are drawn. */
export function choiceLabel(chosen: readonly Sheet[], sheets: readonly Sheet[]): string {
  return chosen.length === sheets.length ? '' : ` (${chosen.length} of ${sheets.length} are drawn, evenly chosen)`;
}
