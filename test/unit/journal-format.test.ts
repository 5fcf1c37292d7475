import { describe, expect, test } from 'vitest';
import { JournalDamage, encode, parse, FORMAT } from '../../proxy/edge/journal-format.ts';
import type { Entry } from '../../proxy/edge/journal-format.ts';
import type { GroupState, Input } from '../../proxy/core/types.ts';
import { epoch } from '../../proxy/core/types.ts';
import { accept, specOf } from './core-world.ts';

/** A file as the daemon leaves it: header, a snapshot of two groups, then lines as they happened. */
function history(): { lines: Buffer[]; sealed: number[]; snapshot: number } {
  const web = accept(accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) }), { kind: 'protect' });
  const db = accept(undefined, { kind: 'apply', spec: specOf(['c'], 'acks', 'db') });
  const bare = ({ spec: _omitted, ...rest }: GroupState): Omit<GroupState, 'spec'> => (void _omitted, rest);
  const entries: Entry[] = [{ format: FORMAT }, { id: 0, state: bare(web), spec: web.spec }, { id: 1, state: bare(db), spec: db.spec }];
  const snapshot = entries.length;
  const sealed = [-1, 0, 0];
  let state = web;
  for (let e = 1; e <= 6; e += 1) {
    const inputs: Input[] = [{ kind: 'cut', generation: state.generation, epoch: epoch(e) }, { kind: 'commit', generation: state.generation, epoch: epoch(e) }];
    for (const input of inputs) {
      state = accept(state, input);
      entries.push({ id: 0, state: bare(state) });
      sealed.push(state.sealed);
    }
  }
  // Each commit (odd lines from here) was synced before the next line was written.
  const synced = (seq: number): number => (seq < snapshot ? snapshot - 1 : seq - 1 - ((seq - snapshot) % 2));
  return { lines: entries.map((entry, seq) => Buffer.from(encode(seq, synced(seq), entry))), sealed, snapshot };
}
const ZEROS = Buffer.alloc(4096);
const { lines, sealed, snapshot } = history();
const whole = Buffer.concat(lines);
const starts = lines.map((_line, i) => lines.slice(0, i).reduce((n, line) => n + line.length, 0));
const sealedIn = (bytes: Buffer): number | undefined => parse(bytes).records.find(({ state }) => state.spec.group === 'web')?.state.sealed;
const lineAt = (at: number): number => starts.findLastIndex((start) => start <= at);

describe('a journal that was cut short', () => {
  test('at every byte: the lines before the cut, with zeros behind it and without', () => {
    const first = starts[snapshot] ?? 0;
    for (let cut = first; cut <= whole.length; cut += 1) {
      const full = lines.findIndex((line, i) => (starts[i] ?? 0) + line.length > cut);
      const last = (full < 0 ? lines.length : full) - 1;
      for (const bytes of [whole.subarray(0, cut), Buffer.concat([whole.subarray(0, cut), ZEROS])]) {
        expect(sealedIn(bytes), `cut at ${cut}`).toBe(sealed[last]);
      }
    }
  });

  test('inside the snapshot, which was on disk before the file got its name: refused', () => {
    for (let cut = 0; cut < (starts[snapshot] ?? 0); cut += 1) {
      expect(() => parse(Buffer.concat([whole.subarray(0, cut), ZEROS])), `cut at ${cut}`).toThrow(JournalDamage);
    }
  });

  test('sectors of what was never synced may be missing in any order', () => {
    const [a = 0, b = 0] = [starts.at(-2), starts.at(-1)];
    for (const [from, to] of [[a, b], [a + 10, b], [a, b - 10], [b, whole.length]] as const) {
      const bytes = Buffer.from(whole);
      bytes.fill(0, from, to);
      expect(sealedIn(bytes)).toBe(sealed.at(from === b ? -2 : -3));
    }
  });
});

describe('a journal that was damaged', () => {
  test('any bit of any synced line, or its newline: refused, never misread', () => {
    const synced = starts.at(-2) ?? 0; // the last line says so of all before the one in front of it
    for (let at = 0; at < synced; at += 1) {
      for (const flip of [0x01, 0x20, 0x80]) {
        const bytes = Buffer.concat([whole, ZEROS]);
        bytes[at] = (bytes[at] ?? 0) ^ flip;
        expect(() => parse(bytes), `byte ${at} of line ${lineAt(at)}`).toThrow(JournalDamage);
      }
    }
  });

  test('the last line: refused, or cut off as one that was never finished', () => {
    for (let at = starts.at(-1) ?? 0; at < whole.length - 1; at += 1) {
      const bytes = Buffer.concat([whole, ZEROS]);
      bytes[at] = (bytes[at] ?? 0) ^ 0x04;
      expect(() => parse(bytes), `byte ${at}`).toThrow(JournalDamage);
    }
    const bytes = Buffer.concat([whole, ZEROS]);
    bytes[whole.length - 1] = 0x0b;
    expect(sealedIn(bytes)).toBe(sealed.at(-2));
  });

  test('a hole over synced lines: refused', () => {
    for (let line = 1; line < lines.length - 2; line += 1) {
      const bytes = Buffer.concat([whole, ZEROS]);
      bytes.fill(0, starts[line], (starts[line] ?? 0) + (lines[line]?.length ?? 0));
      expect(() => parse(bytes), `line ${line}`).toThrow(JournalDamage);
    }
  });

  test('a line twice, a line missing, another format, nothing at all: refused', () => {
    expect(() => parse(Buffer.concat([...lines.slice(0, 4), ...lines.slice(3)]))).toThrow(JournalDamage);
    expect(() => parse(Buffer.concat([...lines.slice(0, 4), ...lines.slice(5)]))).toThrow(JournalDamage);
    expect(() => parse(Buffer.from('{"format":"other"}\n'))).toThrow(JournalDamage);
    expect(() => parse(ZEROS)).toThrow(JournalDamage);
    expect(() => parse(Buffer.alloc(0))).toThrow(JournalDamage);
  });
});

test('a power cut leaves any of the sectors written since the last sync: what was synced is there', () => {
  const SECTOR = 512;
  let state = 12345;
  const coin = (): boolean => ((state = (Math.imul(state, 1103515245) + 12345) >>> 0) & 0x10000) !== 0;
  const kept = 8; // a commit, synced; what follows claims no more than that
  const unsynced = lines.slice(kept + 1).map((line, i) => Buffer.from(encode(kept + 1 + i, kept, parseEntry(line))));
  const before = Buffer.concat([...lines.slice(0, kept + 1), Buffer.alloc(8192)]);
  const after = Buffer.concat([...lines.slice(0, kept + 1), ...unsynced, Buffer.alloc(8192)]);
  const seen = new Set<number | undefined>();
  for (let run = 0; run < 5000; run += 1) {
    const bytes = Buffer.from(before);
    for (let at = 0; at < after.length; at += SECTOR) if (coin()) after.copy(bytes, at, at, Math.min(at + SECTOR, bytes.length, after.length));
    const now = sealedIn(bytes);
    expect(now).toBeGreaterThanOrEqual(sealed[kept] ?? 0);
    seen.add(now);
  }
  expect(seen.size).toBeGreaterThan(1);
});
const parseEntry = (line: Buffer): Entry => JSON.parse(line.toString().slice(35)) as Entry;

test('groups that are gone do not come back, and a spec is taken from where it was last written', () => {
  const state = accept(undefined, { kind: 'apply', spec: specOf(['a'], 'explicit', 'db') });
  const { spec, ...rest } = state;
  const after: Entry[] = [{ format: FORMAT }, { id: 3, state: rest, spec }, { gone: 'db' }, { id: 3, state: rest, spec: { ...spec, group: 'new' } }, { id: 3, state: rest }];
  const { records } = parse(Buffer.concat(after.map((entry, seq) => Buffer.from(encode(seq, 0, entry)))));
  expect(records.map(({ id, state: now }) => [id, now.spec.group])).toEqual([[3, 'new']]);
});
