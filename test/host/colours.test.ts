/**
 * I2, I3 and I6 on real frames: members cut one after the other under traffic inside the group.
 *
 * No orphan is the outside oracle turned inside: for receiver r a frame coloured e may be seen only
 * from the begin of r's own cut(e - 1) on. So each receiver has an oracle in which *its* cuts play
 * the commits; the sender's cuts give the floors, with the same one-sided clocks. Receivers are
 * packet sockets, so times of receipt are the kernel's.
 */
import { describe, expect, it } from 'vitest';
import { Bed, type Plane } from '../../bench/bed/bed.ts';
import { sleep } from '../../bench/bed/commands.ts';
import { Engine } from '../../bench/bed/engine.ts';
import type { FramePort } from '../../bench/bed/frame-port.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { Oracle } from '../../bench/bed/oracle.ts';
import { parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import { flowKey } from '../../bench/bed/traffic.ts';
import { PLANES } from '../support/planes.ts';
import { UNPRIVILEGED } from './privilege.ts';

interface Inside {
  readonly name: string;
  readonly end: FramePort;
  /** The oracle of what this member receives. */
  readonly oracle: Oracle;
  /** Sequence numbers received, by flow, in order of receipt. */
  readonly got: Map<number, number[]>;
}

interface Stage {
  readonly bed: Bed;
  readonly engine: Engine;
  readonly members: readonly Inside[];
  member(i: number): Inside;
  send(from: number, to: number, count?: number): void;
  /** Cuts one member alone and tells every oracle. */
  cutMember(i: number): Promise<void>;
  drain(): void;
  settle(): Promise<void>;
  received(from: number, to: number): number[];
}

const flowId = (from: number, to: number): number => from * 16 + to;

async function onStage(plane: Plane, kind: 'tap' | 'veth', n: number, job: (stage: Stage) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: Array.from({ length: n }, () => kind), addresses: false, plane });
  try {
    const daemon = bed.daemon();
    await daemon.start('live');
    const engine = new Engine(daemon.api, 'c');
    await engine.protect(bed.groupFile('c'));
    await job(stageOf(bed, engine));
  } finally {
    await bed.close();
  }
}

function stageOf(bed: Bed, engine: Engine): Stage {
  const members = bed.members.map(({ name }, i): Inside => ({ name, end: bed.end(i), oracle: new Oracle(), got: new Map() }));
  for (const { oracle } of members) oracle.begin('commit', 1, 0)(true);
  const next = new Map<number, number>();
  const epochs = members.map(() => 1);
  const member = (i: number): Inside => {
    const found = members[i];
    if (found === undefined) throw new Error(`no member ${i}`);
    return found;
  };
  const drain = (): void => members.forEach((each) => each.end.drain((frame, atUs) => {
    const probe = parseProbe(frame);
    if (probe === undefined) return;
    each.oracle.seen(flowKey(probe.flow, probe.seq), atUs);
    const got = each.got.get(probe.flow) ?? [];
    each.got.set(probe.flow, got);
    got.push(probe.seq);
  }));
  return {
    bed, engine, members, member, drain,
    send(from, to, count = 1) {
      const id = flowId(from, to);
      const frame = probeFlow(bed.member(from).address, bed.member(to).address, id, 200);
      for (let i = 0; i < count; i++) {
        const seq = next.get(id) ?? 0;
        next.set(id, seq + 1);
        member(to).oracle.sent(flowKey(id, seq), member(from).name, nowUs());
        expect(member(from).end.send(frame(seq))).toBe(true);
      }
    },
    async cutMember(i) {
      const epoch = epochs[i] ?? 0;
      epochs[i] = epoch + 1;
      const atUs = nowUs();
      const answers = members.map((each, r) =>
        r === i ? each.oracle.begin('commit', epoch + 1, atUs) : each.oracle.begin('cut', epoch, atUs, member(i).name));
      await engine.cut(member(i).name, epoch);
      for (const answered of answers) answered(true);
    },
    async settle() {
      for (let i = 0; i < 25; i++) {
        drain();
        await sleep(4);
      }
    },
    received: (from, to) => member(to).got.get(flowId(from, to)) ?? [],
  };
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe.skipIf(UNPRIVILEGED !== undefined).each(PLANES)('colours: members cut one after the other, over %s', (plane) => {
  it('no orphan, nothing lost, order kept, over 60 epochs under traffic', async () => {
    await onStage(plane, 'veth', 3, async (stage) => {
      const pairs = [[0, 1], [1, 0], [1, 2], [2, 0]] as const;
      const timer = setInterval(() => {
        for (const [from, to] of pairs) stage.send(from, to, 3);
        stage.drain();
      }, 1);
      try {
        for (let epoch = 1; epoch <= 60; epoch++) {
          for (const i of epoch % 2 === 0 ? [0, 1, 2] : [2, 0, 1]) {
            await stage.cutMember(i);
            await sleep(epoch % 3);
          }
          await stage.engine.commit(epoch);
        }
      } finally {
        clearInterval(timer);
      }
      await stage.settle();
      for (const { name, oracle, end } of stage.members) {
        expect(end.missed()).toBe(0);
        expect(oracle.leaks, `orphans at ${name}`).toEqual([]);
      }
      let frames = 0;
      for (const [from, to] of pairs) {
        const got = stage.received(from, to);
        expect(got).toEqual(upTo(got.length));
        frames += got.length;
      }
      const counts = stage.members.map(({ oracle }) => oracle.count());
      expect(counts.map((count) => count.sent - count.seen)).toEqual([0, 0, 0]);
      console.log(`colours over ${plane}: ${frames} frames inside over 60 epochs cut member by member: 0 orphans, 0 lost, 0 reordered`);
    });
  });

  it('an early frame waits for its receiver, and those behind it wait with it', async () => {
    await onStage(plane, 'tap', 2, async (stage) => {
      stage.send(0, 1, 5);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual(upTo(5));
      await stage.cutMember(0);
      stage.send(0, 1, 20);
      await stage.settle();
      expect(stage.received(0, 1), 'coloured 2, the receiver is in 1').toEqual(upTo(5));
      await stage.cutMember(1);
      stage.send(0, 1, 20);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual(upTo(45));
      expect(stage.member(1).oracle.leaks).toEqual([]);
    });
  });

  it('a frame in transit at the cut is delivered, recorded, and delivered again by a rollback', async () => {
    await onStage(plane, 'tap', 2, async (stage) => {
      await stage.cutMember(1);
      stage.send(0, 1, 30); // coloured 1, the receiver is in 2: channel state of cut 1
      await stage.settle();
      expect(stage.received(0, 1)).toEqual(upTo(30));
      await stage.cutMember(0);
      stage.send(0, 1, 10); // coloured 2: of the execution that will be gone
      await stage.settle();
      expect(stage.received(0, 1)).toEqual(upTo(40));
      await stage.engine.rollback(1);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual([...upTo(40), ...upTo(30)]);
      await stage.engine.rollback(1);
      await stage.settle();
      expect(stage.received(0, 1), 'a second failure delivers them once more').toEqual([...upTo(40), ...upTo(30), ...upTo(30)]);
    });
  });

  it('once the cut after it is committed, a recorded frame is not delivered again', async () => {
    await onStage(plane, 'tap', 2, async (stage) => {
      await stage.cutMember(1);
      stage.send(0, 1, 30);
      await stage.cutMember(0);
      await stage.engine.cut();
      await stage.engine.commit(2);
      await stage.engine.rollback(2);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual(upTo(30));
    });
  });

  it('an early frame of an execution that was rolled back is never delivered', async () => {
    await onStage(plane, 'tap', 2, async (stage) => {
      await stage.cutMember(0);
      stage.send(0, 1, 20);
      await stage.engine.rollback(0);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual([]);
      stage.send(0, 1, 5);
      await stage.settle();
      expect(stage.received(0, 1)).toEqual([20, 21, 22, 23, 24]);
    });
  });
});
