/** Which way a sync goes on a disk that is slow, and what becomes of one that fails: the clock is the test's, so is what a sync takes of it. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import type * as Fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { JournalFile } from '../../proxy/edge/journal-file.ts';
import type { GroupState } from '../../proxy/core/types.ts';
import { epoch } from '../../proxy/core/types.ts';
import { accept, specOf } from './core-world.ts';

const SYNC_MS = 5;
const world = vi.hoisted(() => ({ nowMs: 0, blocking: 0, fails: false, writes: 0, writeFails: false, roomBytes: Infinity }));
vi.mock('node:fs', async (real) => {
  const fs = await real<typeof Fs>();
  return {
    ...fs,
    writeSync: (...call: Parameters<typeof fs.writeSync>): number => {
      world.writes += 1;
      if (world.writeFails) throw new Error('EIO: i/o error');
      return fs.writeSync(...call);
    },
    write: (fd: number, from: Buffer, begin: number, bytes: number, at: number, done: (error: Error | null, written: number) => void): void => {
      if (at + bytes > world.roomBytes) setImmediate(() => done(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' }), 0));
      else fs.write(fd, from, begin, bytes, at, done);
    },
    fdatasync: (fd: number, done: Fs.NoParamCallback): void => {
      const fails = world.fails;
      world.fails = false;
      if (fails) setImmediate(() => done(new Error('EIO: i/o error')));
      else fs.fdatasync(fd, done);
    },
    fdatasyncSync: (fd: number): void => {
      fs.fdatasyncSync(fd);
      world.blocking += 1;
      world.nowMs += SYNC_MS;
    },
  };
});

let dir = '';
beforeEach(() => {
  Object.assign(world, { nowMs: 0, blocking: 0, fails: false, writes: 0, writeFails: false, roomBytes: Infinity });
  dir = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
  vi.spyOn(performance, 'now').mockImplementation(() => world.nowMs);
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true, force: true });
});
const begun = (group: string): GroupState => accept(accept(undefined, { kind: 'apply', spec: specOf(['a', 'b'], 'explicit', group) }), { kind: 'protect' });
const cut = (state: GroupState): GroupState => accept(accept(state, { kind: 'cut', generation: state.generation, epoch: epoch(state.sealed + 1) }), { kind: 'commit', generation: state.generation, epoch: epoch(state.sealed + 1) });

test('a generation that begins passes the pool by, commits do not, and many that begin together block once a second', async () => {
  const journal = JournalFile.open(dir);
  await journal.load();
  const append = async (id: number, state: GroupState): Promise<number> => {
    const before = world.blocking;
    await journal.append({ id, state }, true);
    return world.blocking - before;
  };
  const first = begun('g0');
  expect(await append(0, first), 'nobody knows yet that the disk is slow').toBe(1);
  expect(await append(0, cut(first)), 'a commit goes to the pool').toBe(0);
  const together: number[] = [];
  for (let id = 1; id <= 20; id += 1) together.push(await append(id, begun(`g${id}`)));
  expect(together).toEqual([1, ...Array.from({ length: 19 }, () => 0)]);
  world.nowMs += 1000;
  expect(await append(21, begun('g21'))).toBe(1);
  expect(await append(0, cut(cut(first)))).toBe(0);
  await journal.close();
  vi.restoreAllMocks();
  const again = JournalFile.open(dir);
  expect(await again.load()).toHaveLength(22);
  await again.close();
});

test('what a failed sync refused is not in the new file that another group asked for meanwhile', async () => {
  const journal = JournalFile.open(dir, { bytesMin: 4096 });
  await journal.load();
  const first = begun('g0');
  await journal.append({ id: 0, state: first }, true);
  world.fails = true; // on the pool: the first was slow
  const refused = journal.append({ id: 0, state: cut(first) }, true);
  for (let i = 0; i < 10; i += 1) await Promise.resolve(); // its line is written, and its sync under way
  const members = Array.from({ length: 60 }, (_, i) => ({ name: `m${i}`, nics: [{ port: `tap${i}`, mac: `02:00:00:00:00:${(16 + i).toString(16)}`, vlan: 0 }] }));
  const large = accept(undefined, { kind: 'apply', spec: { ...specOf(['a'], 'explicit', 'large'), members } }); // a line that the file has no room for
  const other = journal.append({ id: 1, state: large }, true);
  await expect(refused).rejects.toMatchObject({ code: 'journal_failed' });
  await other;
  await journal.close();
  const again = JournalFile.open(dir);
  expect((await again.load()).map(({ state }) => [state.spec.group, state.sealed, state.committed])).toEqual([['g0', 0, 0], ['large', 0, 0]]);
  await again.close();
});

test('what comes together is one write, and where that fails all of it is refused and none of it stays', async () => {
  const journal = JournalFile.open(dir);
  await journal.load();
  const states = ['g0', 'g1', 'g2'].map(begun);
  await Promise.all(states.map((state, id) => journal.append({ id, state }, true)));
  expect(world.writes).toBe(1);
  world.writeFails = true;
  const cuts = states.map((state, id) => journal.append({ id, state: cut(state) }, id === 1));
  for (const each of cuts) await expect(each).rejects.toMatchObject({ code: 'journal_failed' });
  expect([world.writes, journal.writable]).toEqual([2, false]);
  world.writeFails = false;
  await journal.append({ id: 2, state: cut(states[2] ?? begun('g2')) }, true); // a new file, made first
  await journal.close();
  const again = JournalFile.open(dir);
  expect((await again.load()).map(({ state }) => [state.spec.group, state.sealed])).toEqual([['g0', 0], ['g1', 0], ['g2', 1]]);
  await again.close();
});

test('a file that fills quickly is followed by a larger one, within a bound and where there is room for it', async () => {
  const KIB = 1024;
  const journal = JournalFile.open(dir, { bytesMin: 8 * KIB });
  await journal.load();
  const size = (): number => statSync(join(dir, 'journal')).size;
  let state = begun('g0');
  /** Until another file has taken the present one's place. */
  const fill = async (eachMs: number): Promise<number> => {
    for (const before = statSync(join(dir, 'journal')).ino; statSync(join(dir, 'journal')).ino === before; ) {
      world.nowMs += eachMs;
      state = cut(state);
      await journal.append({ id: 0, state }, false);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return size() / KIB;
  };
  expect(size() / KIB).toBe(8);
  expect(await fill(1000), 'slowly').toBe(8);
  world.roomBytes = 8 * KIB;
  expect(await fill(1), 'the disk has room for no larger one').toBe(8);
  expect(journal.writable).toBe(true);
  world.roomBytes = Infinity;
  expect([await fill(1), await fill(1), await fill(1)], 'quickly').toEqual([16, 32, 32]);
  await journal.close();
  const again = JournalFile.open(dir);
  expect((await again.load()).map(({ state: { sealed } }) => sealed)).toEqual([state.sealed]);
  await again.close();
});
