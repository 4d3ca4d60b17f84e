// The chat page in headless Chromium, by real clicks: a picture is added, two questions are asked, the cells are laid over the picture.
// SPARSEVILA_SCREENSHOTS=FOLDER keeps what it looked like. Skipped where Chromium is missing: apt-get install chromium.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Engine, openEngine, PACKAGED_PICTURE } from '../../src';
import { type Server, serve } from '../../src/server/server';
import { TINY } from '../support/assets';
import { CHROMIUM, openPage, type Page } from '../support/chromium';

const FOLDER = process.env.SPARSEVILA_SCREENSHOTS;
if (CHROMIUM === undefined) process.stderr.write('The specs of the page are skipped: apt-get install chromium.\n');

let engine: Engine;
let server: Server;
let page: Page | undefined;

beforeAll(async () => {
  engine = await openEngine(TINY, { maxRunning: 2 });
  server = await serve(engine, { port: 0 });
});
afterEach(async () => {
  await page?.close();
  page = undefined;
});
afterAll(async () => {
  await server.close({ now: true });
  await engine.close();
});

it('is served with a policy that allows nothing from elsewhere', async () => {
  for (const path of ['/', '/page.css', '/page.js']) {
    const response = await fetch(server.url + path);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect((await response.text()).match(/(src|href)="(https?:)?\/\//g)).toBeNull();
  }
});

const shot = async (shown: Page, name: string): Promise<Buffer> => {
  const png = await shown.screenshot();
  if (FOLDER !== undefined) {
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(join(FOLDER, `${name}.png`), png);
  }
  return png;
};

/** Of the overlay of the first picture: shares of opaque, of half transparent and of clear pixels. */
const OVERLAY = `(() => {
  const { width, height } = document.querySelector('#pictures canvas');
  const { data } = document.querySelector('#pictures canvas').getContext('2d').getImageData(0, 0, width, height);
  const shares = [0, 0, 0];
  for (let i = 3; i < data.length; i += 4) shares[data[i] === 0 ? 2 : data[i] < 150 ? 1 : 0] += 1 / (width * height);
  return shares;
})()`;

const idle = "!document.querySelector('#send').disabled";

(CHROMIUM === undefined ? it.skip : it)(
  'answers about a picture, with the heat and the times of both ways',
  async () => {
    page = await openPage(`${server.url}/`);
    await page.resize(1280, 900);
    await page.until("document.querySelector('#model').textContent === 'tiny-nvila'");
    const { root } = (await page.send('DOM.getDocument')) as { root: { nodeId: number } };
    const { nodeId } = await page.send('DOM.querySelector', { nodeId: root.nodeId, selector: '#files' });
    await page.send('DOM.setFileInputFiles', { nodeId, files: [PACKAGED_PICTURE] });
    await page.until("document.querySelector('#pictures img')");

    await page.click('#question');
    await page.type('Where is the yellow 2?');
    await page.click('#send');
    await page.until(`document.querySelectorAll('table th').length > 8 && ${idle}`);
    expect(await page.evaluate("document.querySelector('.answer').textContent")).toBe('d5');
    const rows = await page.evaluate<string[][]>(
      "[...document.querySelectorAll('table tr')].map((row) => [...row.children].map((cell) => cell.textContent))",
    );
    expect(rows.slice(0, 3)).toEqual([
      ['of 100 visual tokens', 'sparse', 'dense'],
      ['visual tokens in the decoder', '40', '100'],
      ['attended by the answer', '10', '100'],
    ]);
    expect(rows.slice(3).map((row) => row.length)).toEqual([3, 3, 3, 3, 3, 3]);
    const caption = await page.evaluate<string>("document.querySelector('figcaption').textContent");
    expect(caption).toMatch(/40 of 100 cells kept, \d+ attended/);
    const [pruned = 0, kept = 0, clear = 0] = await page.evaluate<number[]>(OVERLAY);
    expect(pruned).toBeGreaterThan(0.55);
    expect(kept).toBeGreaterThan(0.02);
    expect(clear).toBeGreaterThan(0.02);
    await shot(page, 'desktop');

    // The next question is asked by the keyboard, with another ratio, and shows other cells.
    await page.click('#prefill');
    await page.press('End', 35);
    expect(await page.evaluate("document.querySelector('#prefill-value').textContent")).toBe('95 %');
    await page.click('#question');
    await page.type('Read row 7.');
    await page.press('Enter', 13);
    await page.until(`document.querySelectorAll('table').length === 2 && ${idle}`);
    expect((await page.evaluate<number[]>(OVERLAY))[0]).toBeGreaterThan(0.9);
    await page.click('li:first-child .show');
    expect((await page.evaluate<number[]>(OVERLAY))[0]).toBeCloseTo(pruned, 5);
    await page.click('input[value=plain]');
    expect((await page.evaluate<number[]>(OVERLAY))[2]).toBeCloseTo(1, 5);
    await page.click('input[value=attended]');

    await page.resize(390, 844, 2);
    expect(await page.evaluate('document.documentElement.scrollWidth <= 390')).toBe(true);
    await shot(page, 'phone');
    await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] });
    await page.resize(1280, 900);
    await shot(page, 'dark');
    expect(page.problems).toEqual([]);
  },
);

(CHROMIUM === undefined ? it.skip : it)('shows an error, and keeps the question', async () => {
  page = await openPage(`${server.url}/`);
  await page.until("document.querySelector('#model').textContent === 'tiny-nvila'");
  await page.evaluate("state.model = 'another'");
  await page.click('#question');
  await page.type('Where?');
  await page.press('Enter', 13);
  await page.until("document.querySelector('.note.error')");
  expect(await page.evaluate("document.querySelector('.note').textContent")).toContain('does not exist');
  expect(await page.evaluate("document.querySelector('#question').value")).toBe('Where?');
});
