// The accuracy of VQAv2 (Goyal et al. 2017, https://visualqa.org/evaluation.html) with the normalization of its official evaluation:
// punctuation, case, numbers in words, articles, contractions without their apostrophes.

/** Removed beside a blank, or if the text has a number such as 1,000; otherwise replaced with a blank. */
const PUNCTUATION = [...';/[]"{}()=+\\_-><@`,?!'];
const ARTICLES = ['a', 'an', 'the'];
const NUMBERS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];

/** Contractions that people write with an apostrophe missing. */
const CONTRACTIONS = `
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll
  how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
  she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
  something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas
  wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
  why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've`;

/** Maps a contraction that lacks one apostrophe to its correct form. */
const WHOLE = new Map(
  CONTRACTIONS.trim()
    .split(/\s+/)
    .flatMap((whole) =>
      [...whole.matchAll(/'/g)].map(({ index }) => [whole.slice(0, index) + whole.slice(index + 1), whole] as const),
    ),
);

/**
 * Leaves out each annotator's answer in turn; an answer that at least three others gave is right, and one that fewer gave counts a third for
 * each: mean over i of min(1, matches among the others / 3). With fewer than four answers all others have to agree; a single accepted answer
 * has to be matched. Always normalizes, whereas the official script does not if all annotators agree.
 */
export function vqaAccuracy(answer: string, answers: readonly string[]): number {
  const given = normalizeVqa(answer);
  const matches = answers.map((truth) => normalizeVqa(truth) === given);
  if (matches.length <= 1) return Number(matches[0] ?? false);
  const all = matches.filter(Boolean).length;
  const needed = Math.min(3, matches.length - 1);
  const shares = matches.map((isMatch) => Math.min(1, (all - Number(isMatch)) / needed));
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

/** The official normalization of an answer. */
export function normalizeVqa(text: string): string {
  const flat = text.replace(/[\n\t]/g, ' ').trim();
  const hasComma = /\d,\d/.test(flat);
  const cleaned = PUNCTUATION.reduce((result, mark) => {
    const isRemoved = hasComma || flat.includes(`${mark} `) || flat.includes(` ${mark}`);
    return result.replaceAll(mark, isRemoved ? '' : ' ');
  }, flat).replace(/\.(?!\d)/g, '');
  return cleaned
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '')
    .map((word) => (word === 'none' ? '0' : NUMBERS.includes(word) ? String(NUMBERS.indexOf(word)) : word))
    .filter((word) => !ARTICLES.includes(word))
    .map((word) => WHOLE.get(word) ?? word)
    .join(' ');
}
