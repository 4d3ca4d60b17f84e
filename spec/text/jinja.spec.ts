// Templates that would take steps, text, memory or time without end: each is refused with a code and the name of its file.
import { parseTemplate, TEMPLATE_LIMITS } from '../../src/text/jinja';
import { strftime } from '../../src/text/strftime';

const render = (source: string): string => parseTemplate(source, 'folder/a.jinja')({ messages: [] });
const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

const doubling = (start: string, change: string): string =>
  `{% set ns = namespace(s=${start}) %}{% for i in range(40) %}{% set ns.s = ${change} %}{% endfor %}{{ ns.s }}`;
const nest = (levels: number, body: string): string =>
  levels === 0 ? body : `{% for i in range(1000) %}${nest(levels - 1, body)}{% endfor %}`;

describe('templates that take too much', () => {
  it.each([
    ['a list without end', '{% set x = range(1000000000) %}', /range\(\) of 1000000000 elements/],
    ['a list that doubles', doubling('[1, 2]', 'ns.s + ns.s'), /elements of one value/],
    ['a text that doubles', doubling("'ab'", 'ns.s + ns.s'), /characters.* of one value/],
    ['a text that grows by replacement', doubling("'aa'", "ns.s.replace('a', 'aaaa')"), /of one value|Invalid string/],
    ['steps without end', nest(3, '{{ i }}'), /stays within 200000 steps|takes too long/],
    ['loops without end and without steps', nest(4, ''), /takes too long/],
    [
      'texts that are long together',
      `{% set ns = namespace(s='${'a'.repeat(100_000)}') %}${nest(1, '{% set x = ns.s + i %}')}`,
      /in all/,
    ],
    [
      'a nested value printed',
      doubling('[1]', '[ns.s, ns.s, ns.s, ns.s]'),
      /takes too long|Invalid string|of one value/,
    ],
    ['a long source', ' '.repeat(TEMPLATE_LIMITS.source + 1), /characters of source/],
    ['white space that a pattern of the parser walks again and again', `${' '.repeat(200_000)}x`, /takes too long/],
  ])('%s', (_, source, message) => {
    const code = expect.stringMatching(/^ERR_TEMPLATE_/);
    expect(() => render(source)).toThrow(refused(code, new RegExp(`^folder/a\\.jinja: .*(${message.source})`)));
  });

  it.each([
    ['a macro that calls itself', '{% macro f(f) %}{{ f(f) }}{% endmacro %}{{ f(f) }}'],
    ['a value in itself', '{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}'],
    ['deep parentheses', `{{ ${'('.repeat(10_000)}1${')'.repeat(10_000)} }}`],
  ])('%s ends in an error of the template', (_, source) => {
    expect(() => render(source)).toThrow(refused('ERR_TEMPLATE_INVALID', /Maximum call stack|chat template failed/));
  });
});

describe('what a template may call', () => {
  it("behaves like Python's", () => {
    expect(render('{{ range(3) | join(",") }} {{ range(5, 1, -2) | join(",") }} {{ True and none is none }}')).toBe(
      '0,1,2 5,3 true',
    );
    expect(() => render('{{ range(0, 1, 0.5) }}')).toThrow(/range\(\) expects integers/);
    expect(() => render("{{ raise_exception('No tools.') }}")).toThrow(/failed: No tools\.$/);
  });

  it('writes dates as Python does in English', () => {
    const date = new Date(2026, 0, 5, 14, 3, 9);
    expect(strftime(date, '%d %b %Y, %A %B %-d %I:%M:%S %p %H %y %m %e %a %%')).toBe(
      '05 Jan 2026, Monday January 5 02:03:09 PM 14 26 01  5 Mon %',
    );
    expect(() => strftime(date, '%Q')).toThrow(/does not know %Q/);
    expect(() => strftime(date, 7)).toThrow(/expects a format/);
  });
});
