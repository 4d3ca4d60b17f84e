// URLs that a stranger names: which addresses are connected to, and that the address that was checked is the one that is used.
import type { LookupAddress } from 'node:dns';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { publicAddresses } from '../../src/image/addresses';
import { fetchImage } from '../../src/image/fetch';

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

describe('public addresses', () => {
  const isPublic = publicAddresses();

  it.each([
    ...[
      '127.0.0.1',
      '127.255.255.254',
      '0.0.0.0',
      '10.0.0.1',
      '100.64.0.1',
      '169.254.169.254',
      '172.16.0.1',
      '172.31.255.255',
    ],
    ...['192.168.1.1', '192.0.0.192', '198.18.0.1', '224.0.0.1', '255.255.255.255'],
    ...[
      '::',
      '::1',
      '::ffff:127.0.0.1',
      '::ffff:8.8.8.8',
      '::127.0.0.1',
      '64:ff9b::7f00:1',
      '64:ff9b:1::1',
      'fc00::1',
      'fd12::1',
    ],
    ...['fe80::1', 'fec0::1', 'ff02::1', '2001::1', '2001:db8::1', '2002:7f00:1::', '100::1', 'localhost', ''],
  ])('%s is not one', (address) => expect(isPublic(address)).toBe(false));

  it.each(['8.8.8.8', '172.15.0.1', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '2a00:1450::1'])(
    '%s is one',
    (address) => expect(isPublic(address)).toBe(true),
  );

  it('subnets can be added, and no other text', () => {
    const rule = publicAddresses(['10.1.0.0/16', '::1']);
    expect(['10.1.2.3', '10.2.0.1', '::1', '::2'].map(rule)).toEqual([true, false, true, false]);
    for (const text of ['10.1.0.0/33', '10.1/16', '10.1.0.0/', '10.0.0.0/8/8', 'example.com'])
      expect(() => publicAddresses([text])).toThrow(expect.objectContaining({ code: 'ERR_OPTION_INVALID' }));
  });
});

describe('a fetch that may use public addresses only', () => {
  let server: Server;
  let port = 0;
  let answered = 0;
  beforeAll(async () => {
    server = createServer((request, response) => {
      answered++;
      if (request.url === '/away') response.writeHead(302, { location: `http://127.0.0.2:${port}/a.png` }).end();
      else if (request.url === '/slow') response.write(PNG.subarray(0, 20));
      else response.end(PNG);
    });
    await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
    port = (server.address() as AddressInfo).port;
  });
  beforeEach(() => {
    answered = 0;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const options = { name: 'image', maxBytes: 1e6 };
  const refusal = { code: 'ERR_IMAGE_URL', message: expect.stringContaining('public address') };
  /** A resolver that answers with these addresses, call after call. */
  const resolver = (...answers: readonly (readonly string[])[]) => {
    let call = 0;
    return ((_name: string, _options: object, done: (error: null, found: LookupAddress[]) => void) => {
      const found = answers[Math.min(call++, answers.length - 1)] ?? [];
      done(
        null,
        found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
      );
    }) as unknown as typeof import('node:dns').lookup;
  };

  it.each(['127.0.0.1', '2130706433', '0x7f.1', '[::ffff:127.0.0.1]', '[::1]', '169.254.169.254', '0'])(
    'refuses the address http://%s',
    async (host) => {
      const fetched = fetchImage(`http://${host}:${port}/a.png`, true, { ...options, addresses: publicAddresses() });
      await expect(fetched).rejects.toMatchObject(refusal);
      expect(answered).toBe(0);
    },
  );

  it('refuses a name that leads to a private address, alone or among others', async () => {
    for (const found of [['127.0.0.1'], ['8.8.8.8', '127.0.0.1'], ['::ffff:127.0.0.1'], []]) {
      const lookup = resolver(found);
      const fetched = fetchImage(`http://pictures.example:${port}/a.png`, true, {
        ...options,
        addresses: publicAddresses(),
        lookup,
      });
      await expect(fetched).rejects.toMatchObject(refusal);
    }
    const real = fetchImage(`http://localhost:${port}/a.png`, true, { ...options, addresses: publicAddresses() });
    await expect(real).rejects.toMatchObject(refusal);
    expect(answered).toBe(0);
  });

  it('connects to the address that was checked, whatever the name means afterwards', async () => {
    const addresses = publicAddresses(['127.0.0.1']);
    const lookup = resolver(['127.0.0.1'], ['127.0.0.3']);
    const bytes = await fetchImage(`http://pictures.example:${port}/a.png`, true, { ...options, addresses, lookup });
    expect(Buffer.from(bytes)).toEqual(PNG);
    // The second look-up would lead elsewhere, and is checked as well.
    const again = fetchImage(`http://pictures.example:${port}/a.png`, true, { ...options, addresses, lookup });
    await expect(again).rejects.toMatchObject(refusal);
  });

  it('checks the address of a redirect', async () => {
    const addresses = publicAddresses(['127.0.0.1']);
    const fetched = fetchImage(`http://127.0.0.1:${port}/away`, true, { ...options, addresses });
    await expect(fetched).rejects.toMatchObject(refusal);
    expect(answered).toBe(1);
  });

  it('ends after its time, whatever the server does', async () => {
    const fetched = fetchImage(`http://127.0.0.1:${port}/slow`, true, { ...options, fetchMs: 50 });
    await expect(fetched).rejects.toMatchObject({
      code: 'ERR_IMAGE_FETCH',
      message: expect.stringContaining('longer than'),
    });
  });
});
