// Drafts that cost no decoder step: what followed the last tokens where they stood before in the conversation. They are right where an answer
// repeats names, numbers or the form of an earlier answer.
// Source: prompt lookup decoding (Saxena, 2023), `prompt_lookup_num_tokens` of transformers.

/** Numbers of last tokens that are looked for, longest first. */
const [LONGEST, SHORTEST] = [4, 2];

/** Up to `most` tokens that followed the latest earlier place of the longest end of `ids`; none if its last tokens stand nowhere else. */
export function lookUp(ids: readonly number[], most: number): readonly number[] {
  if (most <= 0) return [];
  let found = -1;
  let length = SHORTEST - 1;
  for (let end = ids.length - 1; end > 0 && length < LONGEST; end--) {
    let same = 0;
    while (same < LONGEST && same < end && ids[end - 1 - same] === ids[ids.length - 1 - same]) same++;
    if (same > length) [found, length] = [end, same];
  }
  return found < 0 ? [] : ids.slice(found, found + most);
}
