/** Which bridges are attached, as the daemon reads it from the directory: also where that is not as `sluice attach` left it. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { note, strike } from '../../checkpoint-hooks/bridge.ts';
import { bridgesOf } from '../../proxy/bridges.ts';

let base: string;
let directory: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'sl-bridges-'));
  directory = join(base, 'bridges.d');
});
afterEach(() => rmSync(base, { recursive: true }));

const there = new Set(['br0', 'br1']);

test('none attached: every bridge may be used; one attached: that one alone; struck again: every one', () => {
  const bridges = bridgesOf(directory);
  expect([bridges.has('br0'), bridges.has('br1'), bridges.missing(there)]).toEqual([true, true, []]);
  expect([note(directory, 'br0'), note(directory, 'br0')]).toEqual([true, false]);
  expect([bridges.has('br0'), bridges.has('br1'), bridges.missing(new Set())]).toEqual([true, false, ['bridge br0 is attached and not there']]);
  expect([strike(directory, 'br0'), strike(directory, 'br0')]).toEqual([true, false]);
  expect(bridges.has('br1')).toBe(true);
});

test('what other programs leave beside is no attachment; a file that could be one is', () => {
  mkdirSync(join(directory, 'old'), { recursive: true });
  for (const name of ['br0~', '.br0.swp', '.placeholder', 'br0.dpkg-new-and-long', 'with space']) writeFileSync(join(directory, name), '');
  const bridges = bridgesOf(directory);
  expect([bridges.has('br1'), bridges.missing(there)]).toEqual([true, []]);
  symlinkSync('/dev/null', join(directory, 'br1')); // however it was made
  expect([bridges.has('br0'), bridges.has('br1'), bridges.missing(there)]).toEqual([false, true, []]);
  expect(() => note(directory, 'old')).toThrow(/EEXIST/);
});

test('a directory that became something else: no port is allowed, and readyz says why instead of failing', () => {
  const bridges = bridgesOf(directory);
  writeFileSync(directory, '');
  expect(() => bridges.has('br0')).toThrow(/can't be read \(ENOTDIR\)/);
  expect(bridges.missing(there)).toEqual([`bridges ${directory} can't be read (ENOTDIR)`]);
});
