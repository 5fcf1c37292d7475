import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { JournalFile } from '../../proxy/edge/journal-file.ts';
import { EdgeError } from '../../proxy/ports.ts';
import type { GroupState } from '../../proxy/core/types.ts';
import { epoch } from '../../proxy/core/types.ts';
import { accept, specOf } from './core-world.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});
const begun = (group: string): GroupState => accept(accept(undefined, { kind: 'apply', spec: specOf(['a', 'b'], 'explicit', group) }), { kind: 'protect' });
const cut = (state: GroupState): GroupState => accept(accept(state, { kind: 'cut', generation: state.generation, epoch: epoch(state.sealed + 1) }), { kind: 'commit', generation: state.generation, epoch: epoch(state.sealed + 1) });

async function reopened(): Promise<Map<string, GroupState>> {
  const journal = JournalFile.open(dir);
  const records = await journal.load();
  await journal.close();
  return new Map(records.map(({ state }) => [state.spec.group, state]));
}

test('what was appended is there again; what was forgotten is not', async () => {
  const journal = JournalFile.open(dir);
  expect(await journal.load()).toEqual([]);
  const web = begun('web');
  await journal.append({ id: 0, state: web }, true);
  await journal.append({ id: 1, state: begun('db') }, true);
  await journal.append({ id: 0, state: cut(web) }, false);
  await journal.forget('db');
  await journal.close();
  expect(await reopened()).toEqual(new Map([['web', cut(web)]]));
});

test('many times its size goes through it, from many groups at once, and the last word stands', async () => {
  const journal = JournalFile.open(dir, { bytesMin: 32 * 1024 });
  await journal.load();
  const groups = Array.from({ length: 12 }, (_, id) => ({ id, state: begun(`g${id}`) }));
  for (let round = 0; round < 120; round += 1) {
    await Promise.all(groups.map(async (group) => {
      group.state = cut(group.state);
      await journal.append({ ...group }, (round + group.id) % 3 === 0);
    }));
  }
  expect(journal.writable).toBe(true);
  expect(statSync(join(dir, 'journal')).size).toBeLessThan(200 * 1024);
  await journal.close();
  expect(await reopened()).toEqual(new Map(groups.map(({ state }) => [state.spec.group, state])));
});

test('the second daemon on a directory is told so in one line, and the first is not disturbed', async () => {
  const journal = JournalFile.open(dir);
  await journal.load();
  expect(() => JournalFile.open(dir)).toThrow(/in use by another sluiced/);
  await journal.append({ id: 0, state: begun('web') }, true);
  await journal.close();
  const next = JournalFile.open(dir);
  expect(await next.load()).toHaveLength(1);
  await next.close();
});

test('a torn tail is cut off and told; the next lines stand where it was', async () => {
  const journal = JournalFile.open(dir);
  await journal.load();
  let web = begun('web');
  await journal.append({ id: 0, state: web }, true);
  await journal.append({ id: 0, state: cut(web) }, false);
  await journal.close();
  const bytes = readFileSync(join(dir, 'journal'));
  const end = bytes.lastIndexOf(0x0a);
  bytes.fill(0, end - 20, end + 1);
  writeFileSync(join(dir, 'journal'), bytes);
  let torn = 0;
  const again = JournalFile.open(dir, { onTorn: (n) => (torn = n) });
  expect((await again.load()).map(({ state }) => state.sealed)).toEqual([0]);
  expect(torn).toBeGreaterThan(100);
  web = cut(cut(web));
  await again.append({ id: 0, state: web }, true);
  await again.close();
  expect((await reopened()).get('web')).toEqual(web);
});

test('damage is refused with what to do, and nothing is written over it', async () => {
  const journal = JournalFile.open(dir);
  await journal.load();
  await journal.append({ id: 0, state: begun('web') }, true);
  await journal.append({ id: 0, state: cut(begun('web')) }, true);
  await journal.close();
  const path = join(dir, 'journal');
  const bytes = readFileSync(path);
  bytes[120] = (bytes[120] ?? 0) ^ 1;
  writeFileSync(path, bytes);
  const broken = JournalFile.open(dir);
  const error: unknown = await broken.load().catch((e: unknown) => e);
  expect(error).toBeInstanceOf(EdgeError);
  expect(String(error)).toMatch(/damaged: line \d+ at byte \d+.*stays held/);
  await broken.close();
  expect(readFileSync(path).equals(bytes)).toBe(true);
});

test('a file that is not ours is refused too', async () => {
  appendFileSync(join(dir, 'journal'), 'hello\n');
  truncateSync(join(dir, 'journal'), 4096);
  const journal = JournalFile.open(dir);
  await expect(journal.load()).rejects.toThrow(/damaged/);
  await journal.close();
});

test('a directory that cannot be used is one line with the fix', () => {
  writeFileSync(join(dir, 'file'), '');
  expect(() => JournalFile.open(join(dir, 'file', 'state'))).toThrow(/cannot use state directory/);
});
