// The options of `load` that decide which pictures sessions accept.

import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type ImageInput, load, PACKAGED_MODEL, PACKAGED_PICTURE } from '../../src';
import { FIXTURES } from '../support/assets';
import { errorOf } from './fixtures';

const QUESTION = 'Where is the yellow 2?';

async function answerTo(image: ImageInput, options: Parameters<typeof load>[1] = {}): Promise<string> {
  const model = await load(PACKAGED_MODEL, options);
  try {
    const session = model.session();
    try {
      return await session.ask(QUESTION, { images: [image], maxTokens: 8 }).text();
    } finally {
      session.dispose();
    }
  } finally {
    model.dispose();
  }
}

describe('load', () => {
  let server: Server;
  let url = '';
  beforeAll(async () => {
    server = createServer((_, response) => response.end(readFileSync(PACKAGED_PICTURE)));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/scene.png`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  it('with allowUrls answers about a picture from a URL as about the file, and without refuses it', async () => {
    expect(await answerTo(url, { allowUrls: true })).toBe(await answerTo(PACKAGED_PICTURE));
    expect((await errorOf(() => answerTo(url))).code).toBe('ERR_IMAGE_URL');
  });

  it('with maxPixels refuses larger pictures', async () => {
    const error = await errorOf(() => answerTo(PACKAGED_PICTURE, { maxPixels: 1000 }));
    expect([error.code, error.message]).toEqual(['ERR_IMAGE_TOO_LARGE', expect.stringMatching(/raise maxPixels/)]);
  });

  it('maxPixels does not limit what the model resizes a small picture to', async () => {
    const small = { data: new Uint8Array(3 * 64).fill(90), width: 8, height: 8, channels: 3 } as const;
    expect(await answerTo(small, { maxPixels: 64 })).toBe(await answerTo(small));
  });

  it('a picture that the model would make too long is refused with advice that helps', async () => {
    const strip = { data: new Uint8Array(3 * 1600).fill(90), width: 1, height: 1600, channels: 3 } as const;
    const ask = async (picture: ImageInput) => {
      const model = await load(join(FIXTURES, 'llava', 'llava-llama'));
      try {
        const session = model.session();
        return await session.ask('What is in it?', { images: [picture], maxTokens: 1 }).text();
      } finally {
        model.dispose();
      }
    };
    const error = await errorOf(() => ask(strip));
    expect([error.code, error.message]).toEqual(['ERR_IMAGE_TOO_LARGE', expect.stringMatching(/Crop the image/)]);
    await ask({ ...strip, data: strip.data.subarray(0, 3 * 400), height: 400 });
  });

  it.each([{ maxPixels: 0 }, { maxPixels: '9' }, { allowUrls: 'yes' }])(
    'refuses %j before it loads',
    async (options) => {
      const error = await errorOf(() => load('/no/such/folder', options as never));
      expect(error.code).toBe('ERR_OPTION_INVALID');
    },
  );
});
