// Perceptually uniform colour maps that survive colour blindness and grey printing: lightness rises evenly with the value.
// Knows nothing of what is coloured. Source: matplotlib's viridis and plasma (Smith & van der Walt, CC0), every tenth of each.

/** A colour `#rrggbb` for a value from 0 to 1; values beyond take the end's colour. */
export type ColourMap = (value: number) => string;

export const viridis = colourMap('440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725');
export const plasma = colourMap('0d0887 41049d 6a00a8 8f0da4 b12a90 cc4778 e16462 f2844b fca636 fcce25 f0f921');

function colourMap(stops: string): ColourMap {
  const colours = stops.split(' ').map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  const last = colours.length - 1;
  return (value) => {
    const at = Math.min(Math.max(value, 0), 1) * last;
    const low = Math.min(Math.floor(at), last - 1);
    const channels = [0, 1, 2].map((c) => {
      const [a, b] = [colours[low]?.[c] ?? 0, colours[low + 1]?.[c] ?? 0];
      return Math.round(a + (b - a) * (at - low));
    });
    return `#${channels.map((channel) => channel.toString(16).padStart(2, '0')).join('')}`;
  };
}
