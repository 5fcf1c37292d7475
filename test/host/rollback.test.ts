/**
 * I5 and I7 on real frames: what leaves after a rollback or a takeover, exactly.
 *
 * A write to a tap is classified before it returns (ebpf), or before the next cut is performed (pcap),
 * so here the test knows each frame's epoch, and what must leave can be compared frame by frame.
 */
import { describe, expect, it } from 'vitest';
import { until } from '../../bench/bed/commands.ts';
import type { Plane } from '../../bench/bed/bed.ts';
import { Rig } from '../../bench/bed/rig.ts';
import { macBytes } from '../../bench/bed/probe.ts';
import { corpus } from '../corpus/corpus.ts';
import { PLANES } from '../support/planes.ts';
import { UNPRIVILEGED } from './privilege.ts';

const PER_EPOCH = 100;
const text = (frame: Uint8Array): string => Buffer.from(frame).toString('hex');

/** A rig without traffic of its own, and everything the outsider receives. */
async function withRig(plane: Plane, job: (rig: Rig, outside: () => Promise<string[]>) => Promise<void>): Promise<void> {
  const rig = await Rig.create({ plane });
  try {
    const seen: string[] = [];
    rig.traffic.watch((frame) => seen.push(text(frame)));
    await job(rig, async () => {
      await until('what is committed has left', async () => {
        const { committed, released } = await rig.engine.sync();
        return released >= committed;
      });
      await rig.settle();
      return seen.splice(0);
    });
  } finally {
    await rig.close();
  }
}

/** Frames of one epoch, from the corpus where a bridge forwards them, numbered so that none is twice. */
function epochFrames(rig: Rig, epoch: number): Uint8Array[] {
  const all = corpus({ source: macBytes(rig.bed.member(0).mac), outsider: macBytes(rig.bed.outsider.mac), mtu: 1500 }, epoch);
  const usable = all.filter(({ bytes, kind }) => bytes.length >= 40 && !/^0180c2/.test(text(bytes)) && !/vlan|tag|ad$|qinq/.test(kind));
  return usable.slice(0, PER_EPOCH).map(({ bytes }, i) => {
    const frame = bytes.slice();
    frame.set([epoch, i], frame.length - 2);
    return frame;
  });
}

/** Sends a hundred frames in each of `epochs`, cutting after each but the last. */
async function fill(rig: Rig, first: number, last: number): Promise<Map<number, string[]>> {
  const sent = new Map<number, string[]>();
  for (let epoch = first; epoch <= last; epoch++) {
    expect(rig.engine.open).toBe(epoch);
    const frames = epochFrames(rig, epoch);
    expect(frames.length).toBe(PER_EPOCH);
    for (const frame of frames) expect(rig.bed.tap(0).send(frame)).toBe(true);
    sent.set(epoch, frames.map(text));
    if (epoch < last) await rig.engine.cut();
  }
  return sent;
}

const of = (sent: Map<number, string[]>, ...epochs: number[]): string[] => epochs.flatMap((epoch) => sent.get(epoch) ?? []);

describe.skipIf(UNPRIVILEGED !== undefined).each(PLANES)('exact release (I5) over %s', (plane) => {
  it('rollback to 2 with epochs 1 to 4 in flight lets exactly 1 and 2 out', async () => {
    await withRig(plane, async (rig, outside) => {
      const sent = await fill(rig, 1, 4);
      expect(await outside()).toEqual([]);
      await rig.engine.rollback(2);
      expect(await outside()).toEqual(of(sent, 1, 2));
      expect(rig.engine.open).toBe(3);
      const again = await fill(rig, 3, 5);
      await rig.engine.commit(4);
      expect(await outside()).toEqual(of(again, 3, 4));
    });
  });

  it('rollback to the last committed epoch discards all that is held', async () => {
    await withRig(plane, async (rig, outside) => {
      const sent = await fill(rig, 1, 4);
      await rig.engine.commit(1);
      expect(await outside()).toEqual(of(sent, 1));
      const answer = await rig.engine.rollback(1);
      expect(await outside()).toEqual([]);
      expect(answer.open).toBe(2);
      const after = await rig.engine.sync();
      expect(after.held.frames).toBe(0);
      expect(after.dropped.discarded).toBe(3 * PER_EPOCH);
    });
  });

  it('the same epochs, rolled back twice, never come out', async () => {
    await withRig(plane, async (rig, outside) => {
      await fill(rig, 1, 3);
      await rig.engine.rollback(0);
      await fill(rig, 1, 3);
      await rig.engine.rollback(0);
      const third = await fill(rig, 1, 3);
      await rig.engine.commit(2);
      expect(await outside()).toEqual(of(third, 1, 2));
    });
  });

  it('eight epochs in flight are released one by one, each exactly', async () => {
    await withRig(plane, async (rig, outside) => {
      const sent = await fill(rig, 1, 9);
      for (let epoch = 1; epoch <= 8; epoch++) {
        await rig.engine.commit(epoch);
        expect(await outside()).toEqual(of(sent, epoch));
      }
    });
  });

  it('a commit of the newest sealed epoch releases all before it, in order', async () => {
    await withRig(plane, async (rig, outside) => {
      const sent = await fill(rig, 1, 9);
      await rig.engine.commit(8);
      expect(await outside()).toEqual(of(sent, 1, 2, 3, 4, 5, 6, 7, 8));
    });
  });
});

describe.skipIf(UNPRIVILEGED !== undefined).each(PLANES)('fencing (I7) over %s', (plane) => {
  it('takeover to 1 lets exactly 1 out, and the old generation can do nothing', async () => {
    await withRig(plane, async (rig, outside) => {
      const sent = await fill(rig, 1, 4);
      const old = rig.engine.generation;
      await rig.engine.takeover(1);
      const all = new Set([...sent.values()].flat());
      const unannounced = async (): Promise<string[]> => (await outside()).filter((frame) => all.has(frame) || !isAnnouncement(frame)); // announced again and again
      expect(await unannounced()).toEqual(of(sent, 1));
      for (const [verb, epoch] of [['cut', 2], ['commit', 3], ['rollback', 1], ['takeover', 1], ['ack', 3]] as const) {
        const answer = await rig.daemon.api.call('POST', `/v1/groups/g/${verb}`, { generation: old, epoch });
        expect([answer.status, (answer.body as { code?: string }).code]).toEqual([409, 'fenced']);
      }
      expect(await unannounced()).toEqual([]);
      const again = await fill(rig, 2, 3);
      for (const frame of [...again.values()].flat()) all.add(frame);
      await rig.engine.commit(2);
      expect(await unannounced()).toEqual(of(again, 2));
    });
  });

  it('what was held when the daemon died never comes out', async () => {
    await withRig(plane, async (rig, outside) => {
      await fill(rig, 1, 3);
      await rig.daemon.kill();
      await rig.restart(undefined);
      expect(rig.engine.open).toBe(3);
      const third = epochFrames(rig, 77);
      for (const frame of third) rig.bed.tap(0).send(frame);
      await rig.engine.cut();
      await rig.engine.commit(3);
      expect(await outside()).toEqual(third.map(text));
    });
  });
});

/** RARP from a takeover's announcement of the members' addresses. */
const isAnnouncement = (frame: string): boolean => frame.slice(24, 28) === '8035';
