// Numbers in English words, as prompts of some models spell them. Source: num2words 0.5.14 `lang_EN.py`, which transformers uses.

const SMALL = [
  ...['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve'],
  ...['thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen', 'nineteen'],
];
const TENS = ['', '', 'twenty', 'thirty', 'forty', 'fifty', 'sixty', 'seventy', 'eighty', 'ninety'];

/** An integer from 0 to 999,999: `one thousand, two hundred and thirty-four`, `one thousand and one`. */
export function numberWords(n: number): string {
  if (n < 20) return SMALL[n] as string;
  if (n < 100) return [TENS[Math.floor(n / 10)], ...(n % 10 === 0 ? [] : [SMALL[n % 10]])].join('-');
  const [unit, name] = n < 1000 ? [100, 'hundred'] : [1000, 'thousand'];
  const rest = n % unit;
  const head = `${numberWords(Math.floor(n / unit))} ${name}`;
  if (rest === 0) return head;
  return `${head}${rest < 100 ? ' and ' : ', '}${numberWords(rest)}`;
}
