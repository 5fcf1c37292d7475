import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GROUP, LANES, MAPS, MARK, MARKER, NEAR_MAX, NIC, NIC_FLAG, PROGRAMS, RESIDUES, STATS, VERDICTS, WIRE_CLOSED, stampPack } from '../../classifier/abi.ts';
import type { Program, StampClass } from '../../classifier/abi.ts';
import { macWrite } from '../../classifier/frame.ts';
import { apply, emptyTables, newGroup, newNic, run } from '../../classifier/rules.ts';
import type { Decision, MacRow, Tables } from '../../classifier/rules.ts';
import type { LaneRow } from '../../classifier/tables.ts';
import { testRun } from '../../proxy/edge/ffi/bpf.ts';
import { Kernel } from '../../proxy/edge/kernel.ts';
import { COUNTERS, load } from '../support/twin-load.ts';
import { enterOwnNamespace, ip, ownPins } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * The kernel programs and their twin side by side: random tables in both, random frames through
 * both, every answer, mark and counter compared. Frames go through the kernel's own test run.
 *
 * SLUICE_SEED repeats a run.
 */
const SEED = Number(process.env['SLUICE_SEED'] ?? Date.now() % 2 ** 31);
const WORLDS = 800;
const FRAMES_PER_WORLD = 90;
/**
 * A frame of a test run has hash 0, and no other can be given to it. So the mark is believed where
 * that is the release hash, and must not be where it is another.
 */
const MASKS = [
  { mask: 0x70000000, shift: 28, releaseHash: 0 }, { mask: 0x70, shift: 4, releaseHash: 0 }, { mask: 0x0e000000, shift: 25, releaseHash: 0x9e3779b9 },
];

/** mulberry32 */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}
type Random = ReturnType<typeof generator>;
const pick = <T>(random: Random, from: readonly T[]): T => {
  const item = from[random(from.length)];
  if (item === undefined) throw new Error('pick of nothing');
  return item;
};

const ANSWER = { next: -1, drop: 2, redirect: 7 } as const;
const DEVICES = 16;
const MAC = (n: number): number => 0x0200_0000_0000 + n;
const OTHERS = [MAC(0x99), 0xffff_ffff_ffff, 0x3333_0000_0016, 0x0180_c200_0000, 0x0180_c200_000e, 0x0180_c200_0010, 0x0100_5e00_0001];

describe.skipIf(UNPRIVILEGED !== undefined)(`kernel and twin agree (seed ${SEED})`, () => {
  const ifindexes: number[] = [];
  beforeAll(() => {
    enterOwnNamespace();
    // Every second pair lies beyond the array that the programs look into first.
    for (let i = 0; i < DEVICES / 2; i += 1) ip(i % 2 === 0 ? `link add a${i} type veth peer name b${i}` : `link add a${i} index ${NEAR_MAX + 2 * i} type veth peer name b${i} index ${NEAR_MAX + 2 * i + 1}`);
    const links = JSON.parse(ip('-j link show type veth')) as { ifindex: number }[];
    ifindexes.push(...links.map(({ ifindex }) => ifindex));
    expect(ifindexes).toHaveLength(DEVICES);
    expect(ifindexes.filter((ifindex) => ifindex >= NEAR_MAX)).toHaveLength(DEVICES / 2);
  });

  describe.each(MASKS)('mark field %o', (mark) => {
    const pins = ownPins(`twin${mark.shift}`);
    let kernel: Kernel<Program>;
    beforeAll(() => {
      const object = readFileSync('classifier/classify.bpf.o');
      kernel = new Kernel<Program>({ object, maps: MAPS, programs: PROGRAMS, mark, releaseHash: mark.releaseHash, pinDir: pins.dir, attach: 'auto', owner: 'sluice test' });
    });
    afterAll(() => {
      kernel.close();
      pins.remove();
    });

    test(`${WORLDS * FRAMES_PER_WORLD} frames`, () => {
      const random = generator(SEED ^ mark.mask);
      const verdicts = new Map<string, number>();
      for (let world = 0; world < WORLDS; world += 1) {
        const turned = [...ifindexes.slice(world % DEVICES), ...ifindexes.slice(0, world % DEVICES)]; // each is everything in its turn
        const tables = randomWorld(random, turned, mark);
        load(kernel, pins.dir, tables, turned);
        const stats = new Map<number, StatsRow>();
        for (let i = 0; i < FRAMES_PER_WORLD; i += 1) compareOne(kernel, tables, turned, random, stats, verdicts, `seed ${SEED} world ${world} frame ${i}`);
        compareCounters(kernel, tables, stats, `seed ${SEED} world ${world}`);
      }
      // A run in which some verdict never came up has compared nothing of it. The rarest come up some 60 times.
      for (const verdict of VERDICTS.filter((name) => name !== 'released')) expect(verdicts.get(verdict) ?? 0, verdict).toBeGreaterThan(20);
      if (mark.releaseHash === 0) expect(verdicts.get('released') ?? 0).toBeGreaterThan(20);
      else expect(verdicts.get('released') ?? 0).toBe(0);
      for (const name of SINGLES) expect(verdicts.get(name) ?? 0, name).toBeGreaterThan(5);
      for (const program of PROGRAMS) for (const answer of possible(program)) expect(verdicts.get(`${program} ${answer}`) ?? 0, `${program} ${answer}`).toBeGreaterThan(20);
    });
  });
});

function possible(program: Program): readonly Decision['answer'][] {
  switch (program) {
    case 'classify': case 'arrive': return ['next', 'drop', 'redirect'];
    case 'release': case 'alight': case 'sink': return ['drop', 'redirect'];
    case 'board': return ['next', 'drop']; // a marker, or without its hash
    case 'express': return ['next', 'redirect'];
    case 'local': return ['next'];
    case 'enter': case 'land': return ['drop']; // a test run has no hash to set, and no outer headers
    case 'guard': case 'guard_self': case 'depart': return ['next', 'drop'];
  }
}

// ------------------------------------------------------------------------------- random worlds

const NICS = 7;
/** Index of the uplink among the devices, where nics of other hosts are. */
const UPLINK = 0;
const WIRE_VLANS = [100, 4094];
/** Index of the first group's ring device. */
const RING = 8;
/** Index of the VXLAN device; a group whose VLAN id is 0 goes by it. */
const TUNNEL = 11;
/** Index of the pool's ring device. */
const POOL = 10;
const VNIS = [7, 0xff_ffff];
const HOME = 0x0a4e_0001;
const GENERATION = 9;
const GROUPS = 2;

function randomWorld(random: Random, ifindexes: readonly number[], mark: { mask: number; shift: number; releaseHash: number }): Tables {
  const t = emptyTables(mark.mask, mark.shift, mark.releaseHash);
  const device = (i: number): number => ifindexes[i] ?? 0;
  const base = pick(random, [1000, 2 ** 31 - 3, 2 ** 32 - 3, 16382, 3]);
  const near = (spread: number): number => (base + random(2 * spread) - spread) >>> 0;
  const nicsOf: number[][] = Array.from({ length: GROUPS }, () => []);
  for (let index = 1; index <= NICS; index += 1) {
    const group = random(40) === 0 ? 300 : random(GROUPS);
    const nic = newNic({
      ifindex: device(index), bridge: device(random(8) === 0 ? 15 : 14), group, member: 1 + random(NICS), mac: MAC(random(6) === 0 ? 1 + random(NICS + 2) : index),
      vlan: pick(random, [0, 0, 0, 0, 0, 0, 7, 100]), flags: randomFlags(random),
    });
    randomCounts(random, nic);
    if (random(5) === 0) {
      Object.assign(nic, { flags: nic.flags | NIC_FLAG.remote | (random(2) === 0 ? NIC_FLAG.first : 0), ifindex: device(UPLINK) });
      if (random(8) > 0) t.peers.set(index, 0x0a4e_0101 + random(2));
    }
    t.nics.set(index, nic);
    if (random(20) > 0 && nic.ifindex !== device(UPLINK)) t.ports.set(nic.ifindex, index);
    if (random(20) > 0) putMac(t.macs, nic.mac, { bridge: nic.bridge, vlan: nic.vlan, nic: index });
    if (random(20) > 0) putMac(t.guarded, nic.mac, { bridge: nic.bridge, vlan: 0, nic: index });
    nicsOf[group]?.push(index);
  }
  for (let member = 1; member <= NICS; member += 1) t.members.set(member, near(random(4) === 0 ? 20 : 2));
  for (let group = 0; group < GROUPS; group += 1) {
    const colour = near(2);
    t.groups.set(group, {
      ...newGroup(colour, device(12 + group), nicsOf[group] ?? []), ringIfindex: random(8) === 0 ? 0 : device(RING + group), laneIfindex: device(RING + 2), exitIfindex: device(RING + group), poolIfindex: random(3) === 0 ? 0 : device(POOL), lanes: randomLanes(random, near), commit: near(3), generation: random(8) === 0 ? WIRE_CLOSED : GENERATION,
      base: (colour - pick(random, [1, 3, 4094, 4096, 9000])) >>> 0, wireVlan: random(6) === 0 ? 0 : (WIRE_VLANS[group] ?? 0), uplink: random(16) === 0 ? 0 : device(UPLINK),
      tunnel: random(8) === 0 ? 0 : device(TUNNEL), vni: VNIS[group] ?? 0, here: HOME,
    });
    if (random(12) > 0) t.vnis.set(VNIS[group] ?? 0, group);
    if (random(12) > 0) t.wires.set(WIRE_VLANS[group] ?? 0, random(40) === 0 ? 301 : group);
  }
  for (const ifindex of ifindexes) if (random(6) > 0) t.devices.set(ifindex, device(random(8) === 0 ? 15 : 14));
  return t;
}
function randomFlags(random: Random): number {
  let flags = random(8) === 0 ? 0 : NIC_FLAG.protected | NIC_FLAG.guarded;
  for (const [flag, odds] of [[NIC_FLAG.drain, 4], [NIC_FLAG.foreignDrop, 4], [NIC_FLAG.intraBridge, 4], [NIC_FLAG.guarded, 8]] as const) {
    if (random(odds) === 0) flags ^= flag;
  }
  return random(6) === 0 ? flags : flags | NIC_FLAG.ready;
}
function randomCounts(random: Random, nic: { heldIn: number; heldOut: number; heldGone: number; earlyIn: number; earlyOut: number; earlyGone: number }): void {
  nic.heldOut = random(1000);
  nic.heldGone = random(10);
  nic.heldIn = nic.heldOut + nic.heldGone + pick(random, [0, 0, 0, 4]);
  nic.earlyOut = random(1000);
  nic.earlyGone = random(10);
  nic.earlyIn = nic.earlyOut + nic.earlyGone + pick(random, [0, 0, 0, 0, 0, 2]);
}
/** A hash map has one entry a key: the first that came stays. */
function putMac(map: Map<number, readonly MacRow[]>, mac: number, row: MacRow): void {
  const rows = map.get(mac) ?? [];
  if (!rows.some((other) => other.bridge === row.bridge && other.vlan === row.vlan)) map.set(mac, [...rows, row]);
}

/** Writes the twin's tables into the kernel's maps. */
/** Some of the colours that frames carry here have a lane, in any state; some lanes are another colour's. */
function randomLanes(random: Random, near: (spread: number) => number): Map<number, LaneRow> {
  return new Map(Array.from({ length: 10 }, () => near(10)).map((colour) => [colour % LANES, { state: random(5), colour }]));
}


// ------------------------------------------------------------------------------ random frames

function randomFrame(random: Random): Uint8Array {
  const bytes = new Uint8Array(15 + random(random(4) === 0 ? 1486 : 50));
  for (let i = 14; i < bytes.length; i += 1) bytes[i] = random(256);
  const anyMac = (): number => (random(4) === 0 ? pick(random, OTHERS) : MAC(1 + random(NICS + 2)));
  macWrite(anyMac(), bytes, 0);
  macWrite(anyMac(), bytes, 6);
  const type = pick(random, [0x0800, 0x0800, 0x0806, 0x86dd, 0x88cc, 0x8100, 0x8100, 0x88a8, 0x9000, random(65536)]);
  bytes[12] = type >> 8;
  bytes[13] = type & 0xff;
  if (type === 0x8100 && bytes.length > 15) {
    bytes[14] = random(16) << 4;
    bytes[15] = pick(random, [0, 7, 100, random(256)]);
  }
  return bytes;
}
/** The kernel's test run takes no IP frame without an IP header. */
function runnable(frame: Uint8Array): Uint8Array {
  const type = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
  const bytesMin = type === 0x0800 ? 34 : type === 0x86dd ? 54 : 15;
  if (frame.length >= bytesMin) return frame;
  const padded = new Uint8Array(bytesMin);
  padded.set(frame);
  return padded;
}
/** Mostly what a member would send: its own source, in its own VLAN. */
function plausible(random: Random, t: Tables, frame: Uint8Array, ifindex: number): Uint8Array {
  const nic = t.nics.get(t.ports.get(ifindex) ?? 0);
  if (nic === undefined || random(4) === 0) return frame;
  const own = new Uint8Array(Math.max(frame.length, 18));
  own.set(frame);
  macWrite(nic.mac, own, 6);
  if (random(3) > 0) macWrite(MAC(1 + random(NICS)), own, 0);
  own[12] = nic.vlan === 0 ? 0x08 : 0x81;
  own[13] = 0;
  if (nic.vlan !== 0) own.set([nic.vlan >> 8, nic.vlan & 0xff], 14);
  return random(64) === 0 ? own.subarray(0, 16 + random(2)) : own;
}
/** As another host would send it: both tags, mostly what the group's members would say to each other. */
function tagged(random: Random, t: Tables, frame: Uint8Array): Uint8Array {
  if (random(4) === 0) return frame;
  const group = pick(random, [...t.groups.values()]);
  const ends = group.nics.flatMap((index) => t.nics.get(index) ?? []);
  const remotes = ends.filter(({ flags }) => (flags & NIC_FLAG.remote) !== 0);
  const source = random(8) > 0 ? pick(random, remotes.length > 0 ? remotes : [...t.nics.values()]) : pick(random, [...t.nics.values()]);
  const inside = new Uint8Array(Math.max(frame.length, 18));
  inside.set(frame);
  macWrite(source.mac, inside, 6);
  if (random(3) > 0) macWrite(pick(random, ends.length > 0 ? ends : [...t.nics.values()]).mac, inside, 0);
  else if (random(2) === 0) macWrite(pick(random, OTHERS), inside, 0);
  inside.set(source.vlan === 0 ? [0x08, 0x00] : [0x81, 0x00, source.vlan >> 8, source.vlan & 0xff], 12);
  const epoch = (group.colour - group.base + pick(random, [0, 0, 0, 1, -1, 3, -15, -16, 1024, 1025, random(4096)])) & 0xfff;
  const inner = ((random(8) === 0 ? random(16) : GENERATION) << 12) | epoch;
  const tags = [random(16) === 0 ? 0x81 : 0x88, random(16) === 0 ? 0x00 : 0xa8, group.wireVlan >> 8, group.wireVlan & 0xff, 0x81, random(16) === 0 ? 1 : 0, inner >> 8, inner & 0xff];
  const cut = random(24) === 0 ? 16 + random(6) : undefined;
  return Uint8Array.from([...inside.subarray(0, 12), ...tags, ...inside.subarray(12)]).subarray(0, cut);
}
function randomMark(random: Random, t: Tables, program: Program): number {
  const other = (random(2 ** 16) << 8) & ~t.markMask;
  if ((program === 'alight' || program === 'board') && random(3) === 0) return ((MARKER.marker << MARKER.shift) | random(2 ** 16)) >>> 0;
  if (program === 'release' || program === 'express' || program === 'alight' || program === 'board' || random(12) === 0) {
    const near = t.groups.get(random(GROUPS))?.colour ?? 0;
    if (random(20) === 0) return 0;
    return stampPack(random(4) as StampClass, random(NICS + 2), random(4) === 0 ? random(16) : random(2), (near + random(24) - 12) >>> 0);
  }
  if (random(3) > 0 && program === 'classify') return other >>> 0;
  return (other | (pick(random, [...Object.values(MARK), 5, 7]) << t.markShift)) >>> 0;
}

interface StatsRow {
  readonly verdicts: number[];
  readonly bytes: number[];
  readonly single: Map<string, number>;
}
function compareOne(
  kernel: Kernel<Program>, t: Tables, ifindexes: readonly number[], random: Random, stats: Map<number, StatsRow>, seen: Map<string, number>, where: string,
): void {
  const program = pick(random, ['classify', 'classify', 'classify', 'classify', 'arrive', 'arrive', 'arrive', 'guard', 'guard', 'guard_self', 'depart', 'land', 'local', 'release', 'release', 'express', 'enter', 'board', 'alight', 'alight', 'sink'] as const);
  const anywhere = pick(random, ifindexes);
  const group = t.groups.get(random(GROUPS));
  const ifindex = program === 'release' ? (group?.holdIfindex ?? 0) : (program === 'express' || (program === 'sink' && random(4) > 0)) && group?.ringIfindex ? group.ringIfindex : program === 'alight' && random(8) > 0 ? (group?.exitIfindex ?? 0) : program === 'board' ? (group?.laneIfindex ?? 0) : program === 'arrive' && random(8) > 0 ? (ifindexes[UPLINK] ?? 0) : program === 'depart' && random(4) > 0 ? (ifindexes[TUNNEL] ?? 0) : anywhere;
  const ingressIfindex = random(5) === 0 ? 0 : pick(random, ifindexes);
  const frame = runnable(frameFor(random, t, program, ifindex));
  const mark = randomMark(random, t, program);
  const expected = run(program, t, frame, { ifindex, ingressIfindex, mark });
  const got = testRun(kernel.programFd(program), frame, ifindex, ingressIfindex, mark);
  const what = `${where}: ${program} at ${ifindex} from ${ingressIfindex} mark 0x${mark.toString(16)} ${Buffer.from(frame.subarray(0, 18)).toString('hex')}`;
  // What a dropped frame's mark was last, after copies were made of it, matters to nobody.
  const dead = program === 'arrive' && expected.answer === 'drop';
  expect({ answer: got.answer, mark: dead ? 0 : got.mark }, what).toEqual({ answer: ANSWER[expected.answer], mark: dead ? 0 : markAfter(expected) });
  if (expected.redirect !== undefined) expect(Buffer.from(got.frame).toString('hex'), what).toBe(Buffer.from(bytesAfter(program, frame, expected)).toString('hex'));
  apply(t, expected);
  record(stats, ifindex, frame.length, expected);
  const bump = (key: string): unknown => seen.set(key, (seen.get(key) ?? 0) + 1);
  if (expected.verdict !== undefined) bump(expected.verdict);
  bump(`${program} ${expected.answer}`);
  for (const name of expected.stats) bump(name);
}
function frameFor(random: Random, t: Tables, program: Program, ifindex: number): Uint8Array {
  if (program === 'classify') return plausible(random, t, randomFrame(random), ifindex);
  const wire = program === 'arrive' || (program === 'guard' && random(4) === 0);
  const frame = wire ? tagged(random, t, randomFrame(random)) : randomFrame(random);
  return wire && random(6) === 0 ? Uint8Array.from([...frame.subarray(0, 12), 0x81, 0x00, 0x00, random(3), ...frame.subarray(12)]) : frame;
}
/**
 * The bytes that go on: with the inner tag in them (the outer one is beside them), or without both.
 * Where tags were taken off, a member's own tag that was behind them is beside the frame.
 */
function bytesAfter(program: Program, frame: Uint8Array, { redirect, clones }: Decision): Uint8Array {
  if (redirect?.tags !== undefined) {
    const { inner } = redirect.tags;
    return Uint8Array.from([...frame.subarray(0, 12), 0x81, 0x00, inner >> 8, inner & 0xff, ...frame.subarray(12)]);
  }
  const isOff = program === 'arrive' || clones.some(({ tags }) => tags !== undefined);
  const from = program === 'arrive' ? 20 : 12;
  const own = isOff && frame[from] === 0x81 && frame[from + 1] === 0 ? 4 : 0;
  return Uint8Array.from([...frame.subarray(0, 12), ...frame.subarray(from + own)]);
}
const markAfter = (decision: Decision): number => decision.mark >>> 0;

function record(stats: Map<number, StatsRow>, ifindex: number, bytes: number, decision: Decision): void {
  const row = stats.get(ifindex) ?? { verdicts: new Array<number>(VERDICTS.length).fill(0), bytes: new Array<number>(VERDICTS.length).fill(0), single: new Map<string, number>() };
  stats.set(ifindex, row);
  for (const name of decision.stats) row.single.set(name, (row.single.get(name) ?? 0) + 1);
  if (decision.verdict === undefined) return;
  const i = VERDICTS.indexOf(decision.verdict);
  row.verdicts[i] = (row.verdicts[i] ?? 0) + 1;
  row.bytes[i] = (row.bytes[i] ?? 0) + bytes;
}

const SINGLES = ['splitCopies', 'leakBlocked', 'unvetted', 'confined', 'duplicate', 'refused', 'redelivered', 'remote', 'stale', 'unknown', 'foreign', 'elsewhere', 'skewed', 'forged'] as const;
function compareCounters(kernel: Kernel<Program>, t: Tables, stats: ReadonlyMap<number, StatsRow>, where: string): void {
  const nics = new DataView(kernel.cells.nics);
  for (const [index, nic] of t.nics) {
    const cell = Object.fromEntries(COUNTERS.map((field) => [field, Number(nics.getBigUint64(index * NIC.size + NIC[field], true))]));
    expect(cell, `${where} nic ${index}`).toEqual(Object.fromEntries(COUNTERS.map((field) => [field, nic[field]])));
  }
  const groups = new BigUint64Array(kernel.cells.groups);
  for (const [id, group] of t.groups) {
    const at = (id * GROUP.size + GROUP.heldIn) / 8;
    expect([...groups.subarray(at, at + RESIDUES)].map(Number), `${where} group ${id}`).toEqual(group.heldIn);
  }
  for (const [ifindex, row] of stats) {
    const words = sumCpus(kernel.counters(ifindex));
    const at = (offset: number): number => words[offset / 8] ?? 0;
    const verdict = (i: number): number => at(STATS.verdict + i * STATS.countSize);
    expect(VERDICTS.map((_, i) => verdict(i)), `${where} verdicts at ${ifindex}`).toEqual(row.verdicts);
    expect(VERDICTS.map((_, i) => at(STATS.verdict + i * STATS.countSize + 8)), `${where} bytes at ${ifindex}`).toEqual(row.bytes);
    expect(at(STATS.in), `${where}: in is the sum of the verdicts`).toBe(row.verdicts.reduce((a, b) => a + b, 0));
    expect(at(STATS.in + 8)).toBe(row.bytes.reduce((a, b) => a + b, 0));
    expect(Object.fromEntries(SINGLES.map((name) => [name, at(STATS[name])])), `${where} counts at ${ifindex}`)
      .toEqual(Object.fromEntries(SINGLES.map((name) => [name, row.single.get(name) ?? 0])));
  }
}
function sumCpus(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const total = new Array<number>(STATS.size / 8).fill(0);
  for (let at = 0; at < bytes.length; at += 8) total[(at % STATS.size) / 8] = (total[(at % STATS.size) / 8] ?? 0) + Number(view.getBigUint64(at, true));
  return total;
}
