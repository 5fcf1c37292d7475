import { expect, test } from 'vitest';
import { rarpFrame } from '../../proxy/edge/announcer.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('a RARP request of the nic for itself, padded to the least size', () => {
  const frame = rarpFrame('02:00:00:00:00:0a', 0);
  expect(frame.length).toBe(60);
  expect(hex(frame).replace(/0+$/, '')).toBe('ffffffffffff02000000000a8035000108000604000302000000000a0000000002000000000a'.replace(/0+$/, ''));
});

test('tagged where the nic is', () => {
  const frame = rarpFrame('02:00:00:00:00:0a', 0x123);
  expect(frame.length).toBe(64);
  expect(hex(frame.subarray(12, 18))).toBe('810001238035');
});
