// What stands above the panels of a sheet where a medium has several: which part of it they show.

import type { Sheet } from './sheets';

/** Of an image that has only one sheet: nothing. */
export function imageLabel(name: string, sheets: readonly Sheet[], { planes }: Sheet): string {
  if (sheets.length === 1 && planes.length === 1) return '';
  return planes.length > 1 ? `${name}: ${planes.length} tiles` : `${name}: the whole picture`;
}

/** The frames that a sheet of a video stands for: from its own to that of the next sheet. */
export function videoLabel(name: string, sheets: readonly Sheet[], { frame }: Sheet, frames: number): string {
  const next = Math.min(frames, ...sheets.map((sheet) => sheet.frame).filter((other) => other > frame));
  return next === frame + 1
    ? `${name}: frame ${frame + 1} of ${frames}`
    : `${name}: frames ${frame + 1} to ${next} of ${frames}, drawn on the first of them`;
}

/** Said once for a video of which not everything is drawn. */
export function choiceLabel(chosen: readonly Sheet[], sheets: readonly Sheet[]): string {
  return chosen.length === sheets.length ? '' : ` (${chosen.length} of ${sheets.length} are drawn, evenly chosen)`;
}
