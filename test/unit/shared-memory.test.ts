/**
 * The file of the shared cells: whoever can write it can release frames, so it is ours alone.
 */
import { chmodSync, closeSync, linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { claimMemory, shareMemory } from '../../proxy/edge/shared-memory.ts';

let directory = '';
beforeEach(() => { directory = mkdtempSync(join(tmpdir(), 'sl-memory-')); });
afterEach(() => { rmSync(directory, { recursive: true, force: true }); });
const path = (): string => join(directory, 'cells');

describe('the file of shared memory', () => {
  test('is made, kept, and seen by every opener', () => {
    expect(() => shareMemory(path(), [4096], 'join', 1), 'who joins makes nothing').toThrow(/ENOENT/);
    const [first] = shareMemory(path(), [4096], 'make', 1);
    new Uint8Array(first ?? new ArrayBuffer(1))[7] = 9;
    const [again] = shareMemory(path(), [4096], 'make', 1);
    expect(new Uint8Array(again ?? new ArrayBuffer(8))[7]).toBe(9);
  });
  test('of another layout is refused, and stays as it is', () => {
    const [first] = shareMemory(path(), [4096], 'make', 1);
    new Uint8Array(first ?? new ArrayBuffer(8))[7] = 9;
    expect(() => shareMemory(path(), [8192], 'make', 2)).toThrow(/left by another version of sluiced \(layout 1 in/);
    expect(() => shareMemory(path(), [4096], 'join', 2)).toThrow(/left by another version/);
    expect(() => shareMemory(path(), [8192], 'make', 1), 'another size').toThrow(/left by another version/);
    const [again] = shareMemory(path(), [4096], 'join', 1);
    expect(new Uint8Array(again ?? new ArrayBuffer(8))[7]).toBe(9);
    writeFileSync(path(), 'cells of before there were numbers');
    expect(() => shareMemory(path(), [4096], 'make', 1)).toThrow(/of no known layout/);
  });
  test.each([
    ['a link', (): void => { writeFileSync(join(directory, 'other'), 'x', { mode: 0o600 }); symlinkSync(join(directory, 'other'), path()); }],
    ['a second name of a file', (): void => { writeFileSync(join(directory, 'other'), 'x', { mode: 0o600 }); linkSync(join(directory, 'other'), path()); }],
    ['a file that others may read', (): void => { writeFileSync(path(), 'x'); chmodSync(path(), 0o644); }],
    ['a file that others may write', (): void => { writeFileSync(path(), 'x'); chmodSync(path(), 0o622); }],
  ])('%s is refused', (_name, make) => {
    make();
    expect(() => shareMemory(path(), [4096], 'make', 1)).toThrow(/not a file of ours alone/);
    expect(() => claimMemory(path())).toThrow(/not a file of ours alone/);
  });
  test('one daemon at a time', () => {
    const claim = claimMemory(path());
    expect(() => claimMemory(path())).toThrow(/in use by another sluiced/);
    closeSync(claim);
    closeSync(claimMemory(path()));
  });
});
