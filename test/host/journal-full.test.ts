import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { JournalFile } from '../../proxy/edge/journal-file.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { epoch } from '../../proxy/core/types.ts';
import type { GroupState } from '../../proxy/core/types.ts';
import { accept, specOf } from '../unit/core-world.ts';
import { UNPRIVILEGED } from './privilege.ts';

const BYTES = 1024 * 1024;
const cut = (state: GroupState): GroupState => accept(state, { kind: 'cut', generation: state.generation, epoch: epoch(state.sealed + 1) });
const committed = (state: GroupState): GroupState => accept(state, { kind: 'commit', generation: state.generation, epoch: state.sealed });

/** Appends until one is refused; returns the last state that was promised. */
async function untilRefused(journal: JournalFile, from: GroupState): Promise<{ kept: GroupState; error: EdgeError }> {
  let kept = from;
  for (let n = 0; n < 20_000; n += 1) {
    const next = committed(cut(kept));
    try {
      await journal.append({ id: 0, state: next }, n % 100 === 0);
    } catch (error) {
      if (error instanceof EdgeError) return { kept, error };
      throw error;
    }
    kept = accept(next, { kind: 'released', colour: next.colourNewest });
  }
  throw new Error('the disk never filled');
}

test.skipIf(UNPRIVILEGED)('a full disk refuses, says so, forgets nothing it promised, and is over when there is room', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${3 * BYTES}`, 'tmpfs', dir]);
  try {
    const journal = JournalFile.open(dir, { bytesMin: BYTES });
    await journal.load();
    const first = accept(accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) }), { kind: 'protect' });
    await journal.append({ id: 0, state: first }, true);
    const { bavail, bsize } = statfsSync(dir);
    writeFileSync(join(dir, 'other'), Buffer.alloc(bavail * bsize - 64 * 1024)); // somebody else's files

    const { kept, error } = await untilRefused(journal, first);
    expect([error.code, error.fix]).toEqual(['journal_failed', 'make room on that file system']);
    expect(error.message).toMatch(/ENOSPC|no space/);
    expect(journal.writable).toBe(false);
    await expect(journal.append({ id: 0, state: committed(cut(kept)) }, true)).rejects.toThrow(/no space/);
    await journal.close();

    const full = JournalFile.open(dir, { bytesMin: BYTES });
    const [record] = await full.load(); // starts, and holds, with the disk as full as before
    expect(full.writable).toBe(false);
    expect(record?.state.committed).toBe(kept.committed);
    rmSync(join(dir, 'other'));
    const next = committed(cut(kept));
    await full.append({ id: 0, state: next }, true);
    expect(full.writable).toBe(true);
    await full.close();

    const again = JournalFile.open(dir, { bytesMin: BYTES });
    expect((await again.load()).map(({ state }) => state.committed)).toEqual([next.committed]);
    await again.close();
  } finally {
    execFileSync('umount', ['-l', dir]);
    rmdirSync(dir);
  }
});
