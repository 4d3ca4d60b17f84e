// Removes alternatives that no finite text completes, such as an object that requires an object of its own kind without end. What is left can be
// completed from every point: an answer never gets stuck.

import type { Expression, Expressions } from './expression';

/** @param references the references whose targets may be unproductive, with their targets */
export function withoutDeadEnds(
  e: Expressions,
  whole: Expression,
  references: ReadonlyMap<Expression, () => Expression>,
): Expression {
  const productive = new Set<Expression>();
  const isProductive = (one: Expression, seen: Map<Expression, boolean>): boolean => {
    const known = seen.get(one);
    if (known !== undefined) return known;
    const found = look(one, (part) => isProductive(part, seen));
    seen.set(one, found);
    return found;
  };
  const look = (one: Expression, go: (part: Expression) => boolean): boolean => {
    if (one.kind === 'fail') return false;
    if (one.kind === 'sequence') return go(one.left) && go(one.right);
    if (one.kind === 'choice') return one.options.some(go);
    if (one.kind === 'repeat') return one.min === 0 || go(one.body);
    if (one.kind === 'group') return go(one.body);
    return one.kind !== 'reference' || !references.has(one) || productive.has(one);
  };
  for (let before = -1; before < productive.size; ) {
    before = productive.size;
    const seen = new Map<Expression, boolean>();
    for (const [reference, target] of references) if (isProductive(target(), seen)) productive.add(reference);
  }
  const cleaned = new Map<Expression, Expression>();
  const clean = (one: Expression): Expression => {
    const known = cleaned.get(one);
    if (known !== undefined) return known;
    const made = rebuilt(one);
    cleaned.set(one, made);
    return made;
  };
  const rebuilt = (one: Expression): Expression => {
    if (one.kind === 'sequence') return e.sequence(clean(one.left), clean(one.right));
    if (one.kind === 'choice') return e.choice(...one.options.map(clean));
    if (one.kind === 'repeat') return e.repeat(clean(one.body), one.min, one.max);
    if (one.kind === 'group') return e.group(clean(one.body));
    const target = one.kind === 'reference' ? references.get(one) : undefined;
    if (target === undefined) return one;
    return productive.has(one) ? e.reference(false, () => clean(target())) : e.fail;
  };
  return clean(whole);
}
