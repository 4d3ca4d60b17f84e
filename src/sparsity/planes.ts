// Budgets per plane. A plane is an image, a tile, a thumbnail or one frame of a video. A method that is written for one plane selects in
// each plane separately, so that every tile and frame keeps its share, and neighborhoods do not cross frames.

import type { Matrix, Prune, Selection, TowerView } from './method';
import { budget } from './top_k';
import { everyIndex, takeRows } from './vectors';

/**
 * Turns a `select` for one plane into a `prune.select` for grids of any number of planes.
 * @param rows `prune.rows` of the method, if it merges
 */
export function perPlane(
  select: (plane: TowerView) => Selection,
  rows: Required<Prune>['rows'] = 'features',
): Prune['select'] {
  return perFilm((planes) => planes.map(select), rows);
}

/** A `prune.select` that keeps of each plane its budget: all tokens, or the `kept` ones that `choose` gives. */
export function perPlaneBudget(
  sparsity: number,
  choose: (plane: TowerView, kept: number) => Selection,
  rows?: Required<Prune>['rows'],
): Prune['select'] {
  return perPlane((plane) => within(plane, budget(plane.tokens, sparsity), choose), rows);
}

/** A `prune.select` that keeps of each grid `budgetOf` tokens, which its planes share. */
export function perGridBudget(
  budgetOf: (grid: TowerView['grid']) => number,
  choose: (film: TowerView, kept: number) => Selection,
): Prune['select'] {
  return (grids) => grids.map((film) => within(film, budgetOf(film.grid), choose));
}

function within(view: TowerView, kept: number, choose: (view: TowerView, kept: number) => Selection): Selection {
  return kept === view.tokens ? everyIndex(kept) : choose(view, kept);
}

/** Turns a `select` for the planes of a grid, each as a grid of one plane, into a `prune.select`. */
export function perFilm(
  select: (planes: readonly TowerView[], film: TowerView) => readonly Selection[],
  rows: Required<Prune>['rows'] = 'features',
): Prune['select'] {
  return (grids) =>
    grids.map((grid) => {
      const planes = planesOf(grid);
      return joined(planes, select(planes, grid), rows);
    });
}

/** Selects by salience, with one budget for all grids of a group. */
export function pruneTogether(
  grids: readonly TowerView[],
  select: (salience: Float32Array) => Int32Array,
  groupOf: (grid: TowerView) => number,
): Int32Array[] {
  const kept: Int32Array[] = [];
  for (const group of new Set(grids.map(groupOf))) {
    const members = Array.from(grids.keys()).filter((i) => groupOf(grids[i] as TowerView) === group);
    const chosen = select(comparable(members.map((i) => grids[i] as TowerView)));
    let from = 0;
    for (const i of members) {
      const { tokens } = grids[i] as TowerView;
      const [begin, end] = [from, from + tokens];
      kept[i] = chosen.filter((token) => token >= begin && token < end).map((token) => token - begin);
      from = end;
    }
  }
  return kept;
}

/**
 * Salience of several grids, concatenated and on one scale. A plane's salience sums to 1, so a token in a plane of n tokens has 1 / n on
 * average. It is ranked by salience times n, divided by the n of the largest plane, so that planes of equal size keep their bits.
 */
function comparable(grids: readonly TowerView[]): Float32Array {
  const planes = grids.flatMap(planesOf);
  const largest = planes.reduce((most, { tokens }) => Math.max(most, tokens), 0);
  return Float32Array.from(
    planes.flatMap((plane) => Array.from(plane.salience(), (salience) => salience * (plane.tokens / largest))),
  );
}

/** The planes of a grid, each as a grid of one plane. Values that they read from the grid are computed once. */
export function planesOf(view: TowerView): TowerView[] {
  const { medium, share } = view;
  const { t, h, w } = view.grid;
  if (t === 1) return [view];
  const salience = once((i) => view.salience(i));
  const keys = once((i) => view.keys(i));
  const features = once(() => view.features());
  const projected = once(() => view.projected());
  return Array.from({ length: t }, (_, plane) => {
    const own = (values: Float32Array): Float32Array => {
      const each = values.length / t;
      return values.slice(plane * each, (plane + 1) * each);
    };
    const part = ({ data, width }: Matrix): Matrix => ({ data: own(data), width });
    return {
      ...{ medium, share, tokens: h * w, grid: { t: 1, h, w } },
      salience: (i = 0) => own(salience(i)),
      keys: (i = 0) => part(keys(i)),
      features: () => part(features(0)),
      projected: () => part(projected(0)),
      question: () => view.question(),
    };
  });
}

function once<T>(compute: (i: number) => T): (i: number) => T {
  const known = new Map<number, T>();
  return (i) => {
    const value = known.get(i) ?? compute(i);
    known.set(i, value);
    return value;
  };
}

/** Joins the selections of a grid's planes. If some planes merge, the others contribute their own rows. */
function joined(
  planes: readonly TowerView[],
  selections: readonly Selection[],
  rows: Required<Prune>['rows'],
): Selection {
  const [only] = selections;
  if (only !== undefined && selections.length === 1) return only;
  const indices = selections.map((one) => (one instanceof Int32Array ? one : one.kept));
  const tokens = planes[0]?.tokens ?? 0;
  const kept = Int32Array.from(indices.flatMap((own, plane) => Array.from(own, (token) => token + plane * tokens)));
  if (selections.every((one) => one instanceof Int32Array)) return kept;
  const merged = selections.map((one, i) =>
    one instanceof Int32Array ? takeRows((planes[i] as TowerView)[rows](), one) : one.rows,
  );
  return { kept, rows: Float32Array.from(merged.flatMap((part) => Array.from(part))) };
}
