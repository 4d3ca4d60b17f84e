// Names on the Hub, and the environment variables for it.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { hubName, requireHubName } from '../../src/hub/names';
import { hubSettings } from '../../src/hub/settings';

test.each([
  ['owner/name', { name: 'owner/name' }],
  ['Efficient-Large-Model/NVILA-Lite-2B', { name: 'Efficient-Large-Model/NVILA-Lite-2B' }],
  ['a_b/c.d-e', { name: 'a_b/c.d-e' }],
  ['owner/name@v1.0', { name: 'owner/name', revision: 'v1.0' }],
  ['owner/name@refs/pr/12', { name: 'owner/name', revision: 'refs/pr/12' }],
])('%s is a name', (text, expected) => expect(hubName(text)).toEqual(expected));

test.each([
  ...[
    '',
    'name',
    './name',
    './owner/name',
    '../owner',
    'owner/..',
    '/owner/name',
    '~/name',
    'a/b/c',
    'owner/',
    '/name',
  ],
  ...['owner//name', 'owner/.name', '-owner/name', 'owner/name-', 'owner/a--b', 'owner/a..b', 'owner/name.git'],
  ...['owner/na me', 'owner/näme', 'owner\\name', 'C:/name', 'https://host/owner', 'owner/name\0', 'owner/name\n'],
  ...['owner/name@', 'owner/name@../x', 'owner/name@/x', 'owner/name@x/../y', 'owner/name@.hidden', 'owner/name@x//y'],
  ...['owner/name@a b', 'owner/name@x.lock', `owner/name@${'x'.repeat(201)}`, `owner/${'x'.repeat(96)}`],
])('%j is not a name', (text) => {
  expect(hubName(text)).toBeUndefined();
  expect(() => requireHubName('download', text, undefined)).toThrow(/expected owner\/name or owner\/name@revision/);
});

test('a revision is given once', () => {
  expect(requireHubName('load', 'owner/name', 'v1')).toEqual({ name: 'owner/name', revision: 'v1' });
  expect(() => requireHubName('load', 'owner/name@v1', 'v1')).toThrow(/the revision once/);
});

describe('the environment', () => {
  const home = mkdtempSync(join(tmpdir(), 'hub-home-'));
  afterAll(() => rmSync(home, { recursive: true }));

  test.each([
    [{}, join(homedir(), '.cache/huggingface/hub')],
    [{ XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ HF_HOME: '/h', XDG_CACHE_HOME: '/x' }, '/h/hub'],
    [{ HF_HOME: '~/h' }, join(homedir(), 'h/hub')],
    [{ HF_HOME: '$DISK/h', DISK: '/d' }, '/d/h/hub'],
    [{ HF_HUB_CACHE: '/c', HF_HOME: '/h' }, '/c'],
    [{ HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
  ])('%j: the cache is %s', (env, cache) => expect(hubSettings(env).cache).toBe(cache));

  test.each([
    [{}, false],
    [{ HF_HUB_OFFLINE: '0' }, false],
    [{ HF_HUB_OFFLINE: '1' }, true],
    [{ HF_HUB_OFFLINE: 'True' }, true],
    [{ TRANSFORMERS_OFFLINE: 'yes' }, true],
  ])('%j: offline %s', (env, offline) => expect(hubSettings(env).offline).toBe(offline));

  test.each([
    [undefined, 'https://huggingface.co'],
    ['https://mirror.example/', 'https://mirror.example'],
    ['https://host.example/api/hub/', 'https://host.example/api/hub'],
  ])('HF_ENDPOINT %s', (given, endpoint) => expect(hubSettings({ HF_ENDPOINT: given }).endpoint).toBe(endpoint));

  test.each(['host', 'ftp://host', 'https://user:secret@host', 'https://host/?x=1'])(
    'HF_ENDPOINT %s is refused',
    (given) => {
      expect(() => hubSettings({ HF_ENDPOINT: given })).toThrow(expect.objectContaining({ code: 'ERR_HUB_SETTINGS' }));
      expect(() => hubSettings({ HF_ENDPOINT: given })).not.toThrow(/secret/);
    },
  );

  test.each(['0', '-1', 'x'])('HF_HUB_DOWNLOAD_TIMEOUT %s is refused', (given) =>
    expect(() => hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: given })).toThrow(/HF_HUB_DOWNLOAD_TIMEOUT/),
  );

  test('the token: HF_TOKEN, else the file that `hf auth login` writes', () => {
    const [file, other] = [join(home, 'token'), join(home, 'other')];
    const token = (env: Record<string, string>): string | undefined => hubSettings({ HF_HOME: home, ...env }).token();
    expect(token({})).toBeUndefined();
    writeFileSync(file, 'hf_file\n');
    writeFileSync(other, 'hf_other');
    expect(token({})).toBe('hf_file');
    expect(token({ HF_TOKEN_PATH: other })).toBe('hf_other');
    expect(token({ HF_TOKEN: ' hf_env\n' })).toBe('hf_env');
    expect(token({ HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' })).toBeUndefined();
    expect(() => token({ HF_TOKEN: 'hf_sec\nret' })).toThrow(expect.objectContaining({ code: 'ERR_HUB_SETTINGS' }));
    expect(() => token({ HF_TOKEN: 'hf_sec\nret' })).not.toThrow(/hf_sec/);
    mkdirSync(join(home, 'folder'));
    expect(() => token({ HF_TOKEN_PATH: join(home, 'folder') })).toThrow(
      expect.objectContaining({ code: 'ERR_FILE_UNREADABLE' }),
    );
  });
});
