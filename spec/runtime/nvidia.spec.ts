// Parsing of nvidia-smi's and the driver's output, on texts of other machines.
import { driverVersion, nvidia, parseSmi } from '../../src/runtime/nvidia';

describe('parseSmi', () => {
  test('names, memory, capability and the driver', () => {
    const text =
      'NVIDIA H200, 143771, 9.0, 580.159.03\nNVIDIA GeForce RTX 4090, D, 24564, 8.9, 580.159.03\nNVIDIA B200, 183359, 10.0, 580.159.03\n';
    expect(parseSmi(text)).toEqual({
      version: '580.159.03',
      gpus: [
        { name: 'NVIDIA H200', memoryBytes: 143_771 * 1_048_576, capability: '9.0' },
        { name: 'NVIDIA GeForce RTX 4090, D', memoryBytes: 24_564 * 1_048_576, capability: '8.9' },
        { name: 'NVIDIA B200', memoryBytes: 183_359 * 1_048_576, capability: '10.0' },
      ],
    });
  });

  test.each([
    '',
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    'Field "compute_cap" is not a valid field to query.',
    'Tesla K80, 11441, [N/A], 470.82.01',
  ])('no row in %j', (text) => {
    expect(parseSmi(text)).toEqual({ gpus: [], version: undefined });
  });
});

test.each([
  [
    'NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.60.13  Wed Nov 30 06:39:21 UTC 2022\nGCC version: 12',
    '525.60.13',
  ],
  ['NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs@U22-I3)', '580.65.06'],
  ['NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124  Release', '570.124'],
  ['GCC version:  gcc version 12.2.0', undefined],
  ['', undefined],
])('driverVersion of %j is %j', (text, version) => {
  expect(driverVersion(text)).toBe(version);
});

test('this machine can be examined', () => {
  const found = nvidia({ PATH: '' });
  for (const device of found.devices) expect(device).toMatch(/^\/dev\/(nvidia\d+|dxg)$/);
  if (found.devices.length === 0) expect(found.gpus).toEqual([]);
});
