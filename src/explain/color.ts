// Perceptually uniform color maps, readable with color blindness and in gray print: lightness rises evenly with the value.
// Source: matplotlib's viridis and plasma (Smith & van der Walt, CC0), every tenth of each.

/** A color `#rrggbb` for a value from 0 to 1; values outside are clamped. */
export type ColorMap = (value: number) => string;

export const viridis = colorMap('440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725');
export const plasma = colorMap('0d0887 41049d 6a00a8 8f0da4 b12a90 cc4778 e16462 f2844b fca636 fcce25 f0f921');

function colorMap(stops: string): ColorMap {
  const colors = stops.split(' ').map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  const last = colors.length - 1;
  return (value) => {
    const at = Math.min(Math.max(value, 0), 1) * last;
    const low = Math.min(Math.floor(at), last - 1);
    const channels = [0, 1, 2].map((c) => {
      const [a, b] = [colors[low]?.[c] ?? 0, colors[low + 1]?.[c] ?? 0];
      return Math.round(a + (b - a) * (at - low));
    });
    return `#${channels.map((channel) => channel.toString(16).padStart(2, '0')).join('')}`;
  };
}
