import { describe, expect, test } from 'vitest';
import type { FramePort } from '../../bench/bed/frame-port.ts';
import { Oracle } from '../../bench/bed/oracle.ts';
import { HostsTraffic, type Bounds, type Speaker } from '../../bench/hosts/traffic.ts';

/**
 * What the judges of traffic across hosts say of each kind of frame. The wires are queues: what a member
 * sends is kept, and put where the test wants it delivered.
 */
class Queue implements FramePort {
  readonly name: string;
  readonly sent: Uint8Array[] = [];
  readonly arrived: Uint8Array[] = [];
  constructor(name: string) {
    this.name = name;
  }
  send(frame: Uint8Array): boolean {
    this.sent.push(Uint8Array.from(frame));
    return true;
  }
  drain(take: (frame: Uint8Array, atUs: number) => void): number {
    const frames = this.arrived.splice(0);
    for (const frame of frames) take(frame, 1);
    return frames.length;
  }
  missed(): number {
    return 0;
  }
  close(): void {
    this.arrived.length = 0;
  }
}

const address = (i: number): Speaker['address'] => ({ mac: Uint8Array.of(2, 0, 0, 0, 0, i), ip: [10, 0, 0, i] });

/** m1 at h1, m2 at h2, both in epoch 5; one frame of each flow is sent by `tick`: outward, then to the other. */
function pair(firstFlow = 0) {
  const bounds: Bounds[] = [{ floor: 5, ceiling: 5 }, { floor: 5, ceiling: 5 }];
  const taps = [new Queue('m1'), new Queue('m2')] as const;
  const outside = new Queue('outside');
  const speakers = taps.map((tap, i): Speaker => ({ name: tap.name, host: i, address: address(i + 1), tap: () => tap }));
  const traffic = new HostsTraffic(new Oracle(), outside, address(9), bounds, { firstFlow });
  const life = traffic.begin(1, speakers);
  const next = (endedAt: number): void => {
    traffic.end(life, endedAt);
    traffic.begin(2, speakers);
    life.silent.add(0).add(1);
  };
  const inside = (from: Queue): Uint8Array => from.sent[1] ?? expect.fail('nothing was sent');
  return { bounds, taps, outside, traffic, life, next, inside };
}

describe('frames across a takeover', () => {
  test('in transit at the cut that the new life begins from: delivered again, no fault', () => {
    const { taps: [m1, m2], traffic, next, inside } = pair();
    traffic.tick();
    next(5);
    m2.arrived.push(inside(m1));
    traffic.drain();
    expect([traffic.again, traffic.oldDelivered, traffic.orphans]).toEqual([1, 0, 0]);
  });

  test('of an epoch beyond that cut, or a ghost\'s: old, at a member and outside', () => {
    const { taps: [m1, m2], outside, traffic, next, inside } = pair();
    traffic.tick();
    next(4);
    m2.arrived.push(inside(m1));
    traffic.drain();
    expect(traffic.oldDelivered, 'sent in epoch 5, the group went on from 4').toBe(1);
    const ghost = pair();
    ghost.next(5);
    ghost.life.silent.clear();
    ghost.traffic.tick();
    const [spoken = expect.fail('no ghost spoke')] = ghost.taps[0].sent;
    ghost.outside.arrived.push(spoken);
    ghost.taps[1].arrived.push(ghost.inside(ghost.taps[0]));
    ghost.traffic.drain();
    expect(ghost.traffic.oldDelivered).toBe(2);
    expect(outside.arrived).toEqual([]);
  });

  test('what was read before a host opened the new generation is of the old one', () => {
    const { taps: [m1, m2], traffic, next, inside } = pair();
    traffic.tick();
    m2.arrived.push(inside(m1));
    next(4);
    expect([traffic.oldDelivered, traffic.again]).toEqual([0, 0]);
  });

  test('left over from an earlier traffic: old', () => {
    const earlier = pair();
    earlier.traffic.tick();
    const { taps: [, m2], traffic } = pair(earlier.traffic.nextFlow);
    m2.arrived.push(earlier.inside(earlier.taps[0]));
    traffic.drain();
    expect(traffic.oldDelivered).toBe(1);
  });
});

test('an orphan is a frame of who has cut at who has surely not', () => {
  const { bounds, taps: [m1, m2], traffic, inside } = pair();
  Object.assign(bounds[0] ?? {}, { floor: 6, ceiling: 6 });
  traffic.tick();
  m2.arrived.push(inside(m1));
  traffic.drain();
  expect(traffic.orphans).toBe(1);
  Object.assign(bounds[1] ?? {}, { ceiling: 6 });
  m2.arrived.push(inside(m1));
  traffic.drain();
  expect(traffic.orphans, 'its host had been asked to cut').toBe(1);
});
