/**
 * I9: what leaves equals what arrived.
 *
 * The corpus goes over two beds: a plain bridge and one with Sluice, where it is held in one epoch
 * and then committed. The outsider must get the same frames, byte for byte, in the same order; the
 * other member the same set (its copies of broadcasts come at once, the rest after the commit).
 * What a bridge itself does not forward is missing on both.
 *
 * Super-frames: TCP over veth members must still be larger than the MTU on the outsider's side of
 * the hold, and TCP inside VXLAN inside a member must flow.
 */
import { describe, expect, it } from 'vitest';
import { Bed, type Plane } from '../../bench/bed/bed.ts';
import { runIn, sleep } from '../../bench/bed/commands.ts';
import { Engine } from '../../bench/bed/engine.ts';
import { tcpGbps } from '../../bench/bed/iperf.ts';
import type { FramePort } from '../../bench/bed/frame-port.ts';
import { macBytes } from '../../bench/bed/probe.ts';
import { ethernet, ipv4, ipv6, tag, tagged, tcp, udp } from '../corpus/bytes.ts';
import { corpus, type CorpusFrame } from '../corpus/corpus.ts';
import { PLANES } from '../support/planes.ts';
import { UNPRIVILEGED } from './privilege.ts';

const MTU = 9000;
const text = (frame: Uint8Array): string => Buffer.from(frame).toString('hex');

interface Received {
  readonly outside: string[];
  readonly member: string[];
}

class Collector {
  readonly frames: string[] = [];
  readonly #port: FramePort;
  constructor(port: FramePort) {
    this.#port = port;
    port.drain(() => undefined);
  }
  /** Reads until nothing came for 80 ms. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 16; quiet++) {
      if (this.#port.drain((frame) => this.frames.push(text(frame))) > 0) quiet = 0;
      await sleep(5);
    }
  }
  take(): void {
    this.#port.drain((frame) => this.frames.push(text(frame)));
  }
}

/** Sends the corpus from member 0's tap; `between` runs after the last frame was sent. */
async function through(bed: Bed, frames: readonly CorpusFrame[], between: (sofar: Received) => Promise<void>): Promise<Received> {
  const outside = new Collector(bed.outside());
  const member = new Collector(bed.tap(1));
  for (const [i, { bytes }] of frames.entries()) {
    expect(bed.tap(0).send(bytes)).toBe(true);
    if (i % 32 === 31) {
      await sleep(1);
      outside.take();
      member.take();
    }
  }
  await sleep(20);
  outside.take();
  await between({ outside: outside.frames, member: member.frames });
  await outside.settle();
  await member.settle();
  return { outside: outside.frames, member: member.frames };
}

/** Names of the frames in `missing`, for a message that says what went wrong. */
function names(frames: readonly CorpusFrame[], missing: readonly string[]): string[] {
  const byText = new Map(frames.map((frame) => [text(frame.bytes), frame.name]));
  return missing.map((each) => byText.get(each) ?? `altered: ${each.slice(0, 120)}`);
}

const without = (these: readonly string[], those: readonly string[]): string[] => {
  const left = new Map<string, number>();
  for (const each of those) left.set(each, (left.get(each) ?? 0) + 1);
  return these.filter((each) => {
    const n = left.get(each) ?? 0;
    left.set(each, n - 1);
    return n <= 0;
  });
};

async function onPlainBridge(frames: readonly CorpusFrame[]): Promise<Received> {
  const bed = await Bed.create({ members: ['tap', 'tap'], mtu: MTU, addresses: false });
  try {
    return await through(bed, frames, () => Promise.resolve());
  } finally {
    await bed.close();
  }
}

/** Without lanes the first epoch, with lanes the second: that one waits in one (the portable plane has none). */
async function heldAndReleased(plane: Plane, frames: readonly CorpusFrame[], epoch: 1 | 2): Promise<Received> {
  const bed = await Bed.create({ members: ['tap', 'tap'], mtu: MTU, addresses: false, plane });
  try {
    const engine = await protectedBy(bed, epoch === 2 ? 'on' : 'off');
    await reach(engine, epoch);
    return await through(bed, frames, async (sofar) => {
      expect(sofar.outside, 'nothing may leave before the commit').toEqual([]);
      await engine.cut();
      await engine.commit(epoch, '?wait=released');
    });
  } finally {
    await bed.close();
  }
}

async function reach(engine: Engine, epoch: 1 | 2): Promise<void> {
  if (epoch === 1) return;
  await engine.cut();
  await engine.commit(1, '?wait=released');
}

const ofBed = { source: macBytes('02:51:00:00:00:01'), outsider: macBytes('02:51:00:00:00:fe'), mtu: MTU };

describe.skipIf(UNPRIVILEGED !== undefined)('byte-exact (I9)', () => {
  it.each(PLANES.flatMap((plane) => ([1, 2] as const).map((epoch): [Plane, 1 | 2] => [plane, epoch])))('the corpus comes out as it went in, in order, and nothing before the commit, over %s, held in epoch %i', async (plane, epoch) => {
    const seed = Number(process.env['SLUICE_SEED'] ?? 20_170_717);
    const frames = corpus(ofBed, seed);
    const plain = await onPlainBridge(frames);
    const held = await heldAndReleased(plane, frames, epoch);
    console.log(`${plane}: corpus seed ${seed}: ${frames.length} frames sent, ${plain.outside.length} forwarded by the plain bridge, ${held.outside.length} released`);
    expect(plain.outside.length).toBeGreaterThan(400);
    expect(names(frames, without(plain.outside, held.outside)), 'missing outside').toEqual([]);
    expect(names(frames, without(held.outside, plain.outside)), 'too many outside').toEqual([]);
    expect(held.outside).toEqual(plain.outside);
    expect(names(frames, without(plain.member, held.member)), 'missing at the member').toEqual([]);
    expect(names(frames, without(held.member, plain.member)), 'too many at the member').toEqual([]);
  });

  it.each([1, 2] as const)('super-frames and partial checksums of a guest come out as over the plain bridge, held in epoch %i', async (epoch) => {
    const plain = await guestFrames(undefined);
    const held = await guestFrames(epoch);
    console.log(`guest offloads: ${plain.map((frame) => frame.length / 2).join(', ')} bytes`);
    expect(Math.max(...plain.map((frame) => frame.length / 2)), 'super-frames must arrive whole').toBeGreaterThan(9000);
    expect(held).toEqual(plain);
  });

  it.each(['off', 'on'] as const)('TCP keeps its super-frames across the hold, lanes %s', async (lanes) => {
    await withEngine({ members: ['veth', 'veth'] }, lanes, async (bed) => {
      const eye = bed.outside();
      let frames = 0;
      let large = 0;
      let largest = 0;
      const timer = setInterval(() => eye.drain((frame) => {
        frames++;
        if (frame.length > 1514) large++;
        largest = Math.max(largest, frame.length);
      }), 2);
      try {
        const gbps = await tcpGbps(bed, { from: bed.member(0), to: bed.outsider, seconds: 1 });
        console.log(`held TCP ${gbps.toFixed(2)} Gbit/s: ${large} of ${frames} frames larger than the MTU, largest ${largest} bytes`);
        expect(gbps).toBeGreaterThan(0);
        expect(largest).toBeGreaterThan(9000);
      } finally {
        clearInterval(timer);
      }
    });
  });

  it.each(['off', 'on'] as const)('TCP inside VXLAN inside a member flows, lanes %s', async (lanes) => {
    await withEngine({ members: ['veth', 'veth'] }, lanes, async (bed) => {
      const ends = [bed.member(0), bed.outsider] as const;
      for (const [i, end] of ends.entries()) {
        const other = ends[1 - i] ?? end;
        const ns = end.namespace ?? '';
        await runIn(ns, 'ip', ['link', 'add', 'vx0', 'type', 'vxlan', 'id', '42', 'dstport', '4789', 'remote', other.ip, 'local', end.ip, 'dev', 'eth0']);
        await runIn(ns, 'ip', ['addr', 'add', `10.82.0.${i + 1}/24`, 'dev', 'vx0']);
        await runIn(ns, 'ip', ['link', 'set', 'vx0', 'up']);
      }
      const gbps = await tcpGbps(bed, { from: bed.member(0), to: { ...bed.outsider, ip: '10.82.0.2' }, seconds: 1 });
      console.log(`held TCP inside VXLAN ${gbps.toFixed(3)} Gbit/s`);
      expect(gbps).toBeGreaterThan(0.01);
    });
  });
});

/** What the outsider gets of frames written with a virtio_net_hdr, as a guest with offloads does. */
async function guestFrames(epoch: 1 | 2 | undefined): Promise<string[]> {
  const bed = await Bed.create({ members: ['tap', 'tap'], addresses: false, tapVnetHeader: true });
  try {
    const engine = epoch === undefined ? undefined : await protectedBy(bed, epoch === 2 ? 'on' : 'off');
    if (engine !== undefined && epoch !== undefined) await reach(engine, epoch);
    const outside = new Collector(bed.outside());
    for (const { header, frame } of offloaded()) expect(bed.tap(0).sendOffloaded(header, frame)).toBe(true);
    await sleep(20);
    outside.take();
    if (engine !== undefined) {
      expect(outside.frames).toEqual([]);
      await engine.cut();
      await engine.commit(epoch, '?wait=released');
    }
    await outside.settle();
    return outside.frames;
  } finally {
    await bed.close();
  }
}

/** TCP over IPv4 and IPv6, with and without a tag, as super-frames and as single frames without checksum. */
function offloaded(): { header: Uint8Array; frame: Uint8Array }[] {
  const { source, outsider } = ofBed;
  const body = new Uint8Array(20_000).map((_, i) => i * 7);
  const virtio = (gso: number, headerBytes: number, segment: number, sumStart: number, sumOffset: number): Uint8Array => {
    const view = new DataView(new ArrayBuffer(10));
    view.setUint8(0, 1); // the checksum is partial
    view.setUint8(1, gso);
    [headerBytes, segment, sumStart, sumOffset].forEach((value, i) => view.setUint16(2 + 2 * i, value, true));
    return new Uint8Array(view.buffer);
  };
  const four = (bytes: number): Uint8Array => ethernet(outsider, source, 0x0800, ipv4({ protocol: 6, payload: tcp(body.subarray(0, bytes), 0x18) }));
  const six = (bytes: number): Uint8Array => ethernet(outsider, source, 0x86dd, ipv6(6, tcp(body.subarray(0, bytes), 0x18, [], 0, 6)));
  const datagram = ethernet(outsider, source, 0x0800, ipv4({ protocol: 17, payload: udp(body.subarray(0, 500)) }));
  const vlan = tag(0x8100, 100);
  return [
    { header: virtio(1, 54, 1448, 34, 16), frame: four(20_000) },
    { header: virtio(1, 54, 1000, 34, 16), frame: four(5000) },
    { header: virtio(4, 74, 1428, 54, 16), frame: six(20_000) },
    { header: virtio(1, 58, 1400, 38, 16), frame: tagged(four(14_000), vlan) },
    { header: virtio(0, 0, 0, 34, 16), frame: four(1000) },
    { header: virtio(0, 0, 0, 34, 6), frame: datagram },
    { header: virtio(0, 0, 0, 38, 16), frame: tagged(four(1000), vlan) },
  ];
}

async function protectedBy(bed: Bed, lanes: 'off' | 'on' = 'off'): Promise<Engine> {
  const daemon = bed.daemon(bed.plane === 'ebpf' ? { lanes } : {});
  await daemon.start('live');
  const engine = new Engine(daemon.api, 'exact');
  await engine.protect(bed.groupFile('exact'));
  return engine;
}

/** A protected bed whose engine cuts every millisecond and commits at once. */
async function withEngine(options: { members: ('tap' | 'veth')[] }, lanes: 'off' | 'on', job: (bed: Bed) => Promise<void>): Promise<void> {
  const bed = await Bed.create(options);
  try {
    const engine = await protectedBy(bed, lanes);
    engine.run({ intervalMs: 1, commitDelayMs: 0 });
    await job(bed);
    await engine.stop();
    expect(engine.failure).toBeUndefined();
  } finally {
    await bed.close();
  }
}
