import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isWhereHeld } from '../../checkpoint-hooks/engines/qemu/begin.ts';
import { Memory } from '../../checkpoint-hooks/engines/qemu/memory.ts';
import { PAGE_BYTES } from '../../checkpoint-hooks/engines/qemu/pages.ts';
import { RamImage, readImage } from '../../checkpoint-hooks/engines/qemu/ram-image.ts';
import { readPart } from '../../checkpoint-hooks/engines/qemu/part.ts';
import { Store } from '../../checkpoint-hooks/engines/qemu/store.ts';
import type { GroupView } from '../../proxy/api/contract.ts';

const RAM_BYTES = 1 << 20;
const PAGES = RAM_BYTES / PAGE_BYTES;
let directory: string;
let store: Store;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sl-store-'));
  store = Store.open(join(directory, 'store'), 'web');
});
afterEach(() => {
  store.close();
  rmSync(directory, { recursive: true, force: true });
});

function finish(pieces: Iterator<void, unknown>): void {
  while (pieces.next().done !== true);
}

/** A guest that is only memory: a file that the test writes to, and its image. */
class Guest {
  readonly path: string;
  readonly live: Memory;
  readonly image: RamImage;
  readonly base: string;
  readonly name: string;
  constructor(name: string) {
    this.name = name;
    this.path = join(directory, `${name}.ram`);
    writeFileSync(this.path, Buffer.alloc(RAM_BYTES / 2, 1));
    truncateSync(this.path, RAM_BYTES);
    this.live = Memory.file(this.path, RAM_BYTES);
    this.image = new RamImage(this.path, RAM_BYTES);
    this.base = store.newBase(name);
    finish(this.image.seed(store.basePath(this.base)));
  }
  scribble(page: number, value: number): void {
    this.live.view(page * PAGE_BYTES, PAGE_BYTES).fill(value);
  }
  now(): Buffer {
    return readFileSync(this.path);
  }
}

async function checkpoint(guests: readonly Guest[], epoch: number, isSettled = true): Promise<void> {
  const sequence = store.stage();
  const members: Record<string, { base: string; ramBytes: number; pages: number; bytes: number }> = {};
  for (const { name, image, base } of guests) {
    const pages = image.capture();
    const bytes = image.writePart(store.stagedPart(sequence, name), Buffer.from(`state ${name} ${epoch}`));
    members[name] = { base, ramBytes: RAM_BYTES, pages, bytes };
  }
  await store.commit(sequence, { generation: 1, epoch, members });
  if (isSettled) for (const { image } of guests) image.settle();
}

function restored(of: Store, name: string): Buffer {
  const source = of.sourcesOf([name]).get(name);
  const to = Memory.anonymous(RAM_BYTES);
  finish(readImage(to, source?.base ?? '', source?.parts ?? [], RAM_BYTES));
  return Buffer.from(to.view(0, RAM_BYTES));
}

/** As another engine finds it: a copy, since this one holds the lock. */
function reopened(): Store {
  const copy = mkdtempSync(join(directory, 'copy-'));
  cpSync(join(directory, 'store'), copy, { recursive: true });
  return Store.open(copy, 'web');
}

describe('the store', () => {
  test('what was durable comes back byte for byte, over many checkpoints, holes and a prune', async () => {
    const guests = [new Guest('front'), new Guest('store')];
    for (let epoch = 1; epoch <= 70; epoch += 1) {
      for (const [i, guest] of guests.entries()) for (let n = 0; n < 5; n += 1) guest.scribble((epoch * 37 + n * 11 + i) % PAGES, epoch + n + 1);
      await checkpoint(guests, epoch);
    }
    expect(store.shouldPrune).toBe(true);
    await store.prune();
    expect(store.checkpoints).toBe(1);
    guests[0]?.scribble(3, 99);
    await checkpoint(guests, 71);
    const other = reopened();
    expect(other.newest).toMatchObject({ epoch: 71, generation: 1 });
    for (const { name, path } of guests) expect(restored(other, name).equals(readFileSync(path)), name).toBe(true);
    const last = other.sourcesOf(['front']).get('front')?.parts.at(-1);
    expect(Buffer.from(readPart(last?.path ?? '', { ramBytes: RAM_BYTES, sequence: last?.sequence ?? 0 }).state).toString()).toBe('state front 71');
    other.close();
  });

  test('a crash between the rename and the settling loses nothing: the base is behind, the delta brings it up', async () => {
    const guest = new Guest('front');
    guest.scribble(7, 7);
    await checkpoint([guest], 1);
    guest.scribble(8, 8);
    await checkpoint([guest], 2, false);
    const other = reopened();
    expect(restored(other, 'front').equals(guest.now())).toBe(true);
    other.close();
  });

  test('what an engine that died had not settled is settled by the next one, before a prune takes it away', async () => {
    const guest = new Guest('front');
    await checkpoint([guest], 1);
    guest.scribble(8, 8);
    await checkpoint([guest], 2, false);
    const next = new RamImage(guest.path, RAM_BYTES);
    const source = store.sourcesOf(['front']).get('front');
    finish(next.adopt(source?.base ?? '', source?.parts ?? []));
    const sequence = store.stage();
    const pages = next.capture();
    const bytes = next.writePart(store.stagedPart(sequence, 'front'), Buffer.from('state'));
    await store.commit(sequence, { generation: 1, epoch: 3, members: { front: { base: guest.base, ramBytes: RAM_BYTES, pages, bytes } } });
    next.settle();
    await store.prune();
    expect(pages).toBe(0);
    const part = store.sourcesOf(['front']).get('front')?.parts.at(-1);
    expect(Buffer.from(readPart(part?.path ?? '', { ramBytes: RAM_BYTES, sequence }).state).toString()).toBe('state');
    expect(restored(store, 'front').equals(guest.now())).toBe(true);
    next.close();
  });

  test('a takeover that was begun is known to the next engine, and ends with the next checkpoint', async () => {
    const guest = new Guest('front');
    await checkpoint([guest], 1);
    expect([store.isNewestOf(1), store.isNewestOf(2)]).toEqual([true, false]);
    store.intend(2);
    const other = reopened();
    expect([1, 2, 3].map((generation) => other.isNewestOf(generation))).toEqual([true, true, false]);
    // The new side dies before its first checkpoint: both stand on the same one, whichever Sluice is at.
    other.intend(3);
    expect([1, 2, 3, 4].map((generation) => other.isNewestOf(generation))).toEqual([true, true, true, false]);
    other.close();
    await checkpoint([guest], 2);
    expect(store.isNewestOf(2)).toBe(false);
  });

  test('a torn word of a takeover leaves the one before; two are damage', async () => {
    const path = join(directory, 'store', 'takeover');
    const tear = (slot: number): void => {
      const bytes = readFileSync(path);
      bytes[slot * 4096 + 20] = (bytes[slot * 4096 + 20] ?? 0) ^ 1;
      writeFileSync(path, bytes);
    };
    await checkpoint([new Guest('front')], 1);
    for (const generation of [2, 3]) store.intend(generation);
    const known = (): boolean[] => {
      const other = reopened();
      try {
        return [2, 3, 4].map((generation) => other.isNewestOf(generation));
      } finally {
        other.close();
      }
    };
    expect(readFileSync(path)).toHaveLength(8192);
    expect(known()).toEqual([true, true, false]);
    tear(0); // the second, of generation 3
    expect(known()).toEqual([true, false, false]);
    tear(1);
    expect(known).toThrow(/no whole record/);
  });

  test.each([
    ['with the first', { first: 2, generation: 3, sequence: 1 }, [true, true, true, false]],
    ['the oldest form', { generation: 3, sequence: 1 }, [true, false, true, false]],
    ['of a checkpoint before the newest', { first: 2, generation: 3, sequence: 7 }, [true, false, false, false]],
  ])('the word of an engine from before the slots is taken over: %s', async (_title, former, known) => {
    await checkpoint([new Guest('front')], 1);
    const path = join(directory, 'store', 'takeover');
    const knownBy = (other: Store): boolean[] => [1, 2, 3, 4].map((generation) => other.isNewestOf(generation));
    rmSync(path);
    writeFileSync(`${path}.json`, JSON.stringify(former));
    const other = reopened();
    expect(knownBy(other)).toEqual(known);
    expect(existsSync(join(other.directory, 'takeover.json'))).toBe(false);
    const { directory: upgraded } = other;
    other.close();
    const next = Store.open(upgraded, 'web');
    expect(knownBy(next)).toEqual(known);
    // One that was left there by a crash, older than what the slots say, changes nothing.
    next.intend(4);
    next.close();
    writeFileSync(join(upgraded, 'takeover.json'), JSON.stringify(former));
    const last = Store.open(upgraded, 'web');
    expect(last.isNewestOf(4)).toBe(true);
    last.close();
    writeFileSync(`${path}.json`, '{"generation":');
    expect(reopened).toThrow(/takeover\.json cannot be read/);
    writeFileSync(`${path}.json`, '{"generation":"3","sequence":1}');
    expect(reopened).toThrow(/takeover\.json: .*generation/);
  });

  test('a guest at a side that Sluice does not hold is no part of the protected execution', () => {
    const side = (n: number) => ({ argv: ['qemu'], qmp: `/q${n}`, pidFile: `/p${n}`, ram: `/r${n}`, ports: [`tap${n}`] });
    const spec = { name: 'front', ramBytes: RAM_BYTES, nics: [{ mac: '02:00:00:00:00:01' }], sides: [side(0), side(1)] as [ReturnType<typeof side>, ReturnType<typeof side>] };
    const view = (phase: GroupView['phase']) => ({ phase, spec: { members: [{ name: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }] } });
    expect(([0, 1] as const).map((at) => isWhereHeld({ spec, side: at }, view('protected')))).toEqual([true, false]);
    expect(([0, 1] as const).map((at) => isWhereHeld({ spec, side: at }, view('idle')))).toEqual([true, true]);
    expect(isWhereHeld({ spec, side: 1 }, undefined)).toBe(true);
    expect(isWhereHeld({ spec: { ...spec, name: 'new' }, side: 1 }, view('protected'))).toBe(true);
  });

  test('a crash before the rename leaves the checkpoint before, of all members', async () => {
    const guests = [new Guest('front'), new Guest('store')];
    await checkpoint(guests, 1);
    const before = guests.map((guest) => guest.now());
    const sequence = store.stage();
    for (const guest of guests) guest.scribble(5, 55);
    guests[0]?.image.capture();
    guests[0]?.image.writePart(store.stagedPart(sequence, 'front'), Buffer.from('half'));
    const other = reopened();
    expect(other.newest?.epoch).toBe(1);
    expect(readdirSync(join(other.directory, 'epochs'))).toEqual(['1']);
    for (const [i, { name }] of guests.entries()) expect(restored(other, name).equals(before[i] ?? Buffer.alloc(0))).toBe(true);
    other.close();
  });

  test('a capture that never became durable is in the next delta, changed again or not', async () => {
    const guest = new Guest('front');
    await checkpoint([guest], 1);
    guest.scribble(20, 1);
    guest.image.capture();
    guest.scribble(21, 2);
    await checkpoint([guest], 3);
    const other = reopened();
    expect(restored(other, 'front').equals(guest.now())).toBe(true);
    other.close();
  });

  test('a standby is at the durable checkpoint and never beyond; only what differs is moved to it', async () => {
    const guest = new Guest('front');
    await checkpoint([guest], 1);
    const path = join(directory, 'standby');
    cpSync(guest.path, path);
    const standby = Memory.file(path, RAM_BYTES);
    standby.view(0, 1)[0] = 200;
    const copying = guest.image.bringStandby(path);
    let step = copying.next();
    while (step.done !== true) step = copying.next();
    expect(step.value.movedBytes).toBe(PAGE_BYTES);
    const durable = guest.now();
    guest.scribble(9, 9);
    guest.image.capture();
    expect(readFileSync(path).equals(durable)).toBe(true);
    guest.image.settle();
    expect(readFileSync(path).equals(guest.now())).toBe(true);
  });
});

describe('refused', () => {
  test('a member that the checkpoint does not have', async () => {
    await checkpoint([new Guest('front')], 1);
    expect(() => store.sourcesOf(['front', 'store'])).toThrow(/member store is not in checkpoint 1.*never come up at different epochs/);
  });

  test('a part of another checkpoint in its place', async () => {
    const guest = new Guest('front');
    await checkpoint([guest], 1);
    guest.scribble(1, 1);
    await checkpoint([guest], 2);
    const [older, newer] = store.sourcesOf(['front']).get('front')?.parts ?? [];
    cpSync(older?.path ?? '', newer?.path ?? '');
    expect(() => restored(store, 'front')).toThrow(/part of checkpoint 1, not 2: the members would come up at different epochs/);
  });

  test.each([
    ['a bit', (part: string) => { const bytes = readFileSync(part); bytes.writeUInt8(bytes.readUInt8(bytes.length - 9) ^ 1, bytes.length - 9); writeFileSync(part, bytes); }, /checksum/],
    ['the tail', (part: string) => truncateSync(part, readFileSync(part).length - 1), /header says otherwise/],
    ['all of it', (part: string) => rmSync(part), /missing/],
  ])('a damaged part: %s', async (_what, harm, why) => {
    const guest = new Guest('front');
    guest.scribble(1, 9);
    await checkpoint([guest], 1);
    harm(store.sourcesOf(['front']).get('front')?.parts[0]?.path ?? '');
    expect(() => restored(store, 'front')).toThrow(why);
  });

  test('a checkpoint missing in the middle, another group, a second engine, an older generation', async () => {
    const guest = new Guest('front');
    for (const epoch of [1, 2, 3]) await checkpoint([guest], epoch);
    expect(() => Store.open(join(directory, 'store'), 'web')).toThrow(/in use by another engine/);
    const other = reopened();
    other.close();
    expect(() => Store.open(other.directory, 'mail')).toThrow(/store of group web/);
    rmSync(join(other.directory, 'epochs', '2'), { recursive: true });
    expect(() => Store.open(other.directory, 'web')).toThrow(/checkpoint 2 is missing before 3/);
    await expect(store.commit(store.stage(), { generation: 0, epoch: 4, members: {} })).rejects.toThrow(/generation 0 is over/);
    expect(existsSync(join(store.directory, 'epochs', '4'))).toBe(false);
  });
});
