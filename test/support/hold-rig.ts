/**
 * A hold plane over the real kernel programs, in a network namespace of its own: run under
 * `unshare --net`, so that everything but the pins goes with the process.
 *
 *   member mem1 ═ mem0 ┐           ┌ out0 ═ out1 outsider
 *               classify└── br0 ───┘
 *                  │      ▲ release
 *                 slh0 ═ slr0 ── hold worker      (slhp ═ slrp: the pool's)
 *
 * It plays the executor: a cut is a cell and a message, a commit is a cell and a message.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { CONFIG, MAPS, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, NIC, NIC_FLAG, PROGRAMS } from '../../classifier/abi.ts';
import { Cells } from '../../classifier/cells.ts';
import { PacketPort } from '../../bench/bed/packet-port.ts';
import { colour, epoch } from '../../proxy/core/types.ts';
import { TCX_INGRESS, linkCreate, mapCells, mapUpdate } from '../../proxy/edge/ffi/bpf.ts';
import { ifNametoindex } from '../../proxy/edge/ffi/libc.ts';
import { loadObject } from '../../proxy/edge/ffi/libbpf.ts';
import { HoldLink } from '../../proxy/plane/link.ts';
import { Near } from '../../proxy/edge/near.ts';
import type { PlaneFact } from '../../proxy/ports.ts';

export const MEMBER_MAC = '02:00:00:00:00:01';
export const OUTSIDER = Uint8Array.of(2, 0, 0, 0, 0, 0x99);
export const MEMBER = Uint8Array.of(2, 0, 0, 0, 0, 1);
const HERE = '/proc/self/ns/net';
const GROUP = 0;

const u32 = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
const ip = (line: string): void => void execFileSync('ip', line.split(' '));

function devices(): void {
  ip('link add br0 type bridge mcast_snooping 0');
  for (const name of ['mem', 'out']) ip(`link add ${name}0 type veth peer name ${name}1`);
  for (const pair of ['0', 'p']) ip(`link add slh${pair} mtu 65535 type veth peer name slr${pair} mtu 65535`);
  for (const name of ['mem0', 'out0']) ip(`link set ${name} master br0`);
  for (const name of ['br0', 'mem0', 'mem1', 'out0', 'out1', 'slh0', 'slr0', 'slhp', 'slrp']) {
    ip(`link set ${name} addrgenmode none arp off`);
    ip(`link set ${name} up`);
  }
}

export class HoldRig {
  readonly plane: HoldLink;
  readonly cells: Cells;
  readonly nic: number;
  readonly outsider: PacketPort;
  readonly member: PacketPort;
  readonly facts: PlaneFact[] = [];
  readonly #pins: string;
  readonly #nicCells: BigUint64Array;
  #open: number;
  readonly #first: number;

  readonly #pool: string | undefined;

  /** `isPooled`: its frames are taken from the ring that groups share. */
  constructor(firstColour: number, isPooled: boolean) {
    this.#pool = isPooled ? 'slrp' : undefined;
    this.#first = this.#open = firstColour;
    devices();
    this.#pins = `/sys/fs/bpf/sl-${process.pid}-hold`;
    mkdirSync(this.#pins, { recursive: true });
    process.on('exit', () => { rmSync(this.#pins, { recursive: true, force: true }); });
    const rodata = new Uint8Array(CONFIG.size);
    rodata.set(u32(MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT));
    const object = loadObject(readFileSync('classifier/classify.bpf.o'), { pinDir: this.#pins, maps: MAPS, programs: PROGRAMS, rodata });
    const map = (name: string): ArrayBuffer => mapCells(`${this.#pins}/${name}`).buffer;
    const nics = map('nics');
    this.#nicCells = new BigUint64Array(nics);
    this.cells = new Cells({ groups: map('groups'), nics, members: map('members') });
    const bridge = ifNametoindex('br0');
    const member = this.cells.newMember();
    this.nic = this.cells.newNic({ group: GROUP, member, vlan: 0, mac: MEMBER_MAC });
    this.cells.place(this.nic, ifNametoindex('mem0'), bridge);
    this.cells.link(GROUP, [this.nic]);
    this.cells.openGroup(GROUP, { holdIfindex: ifNametoindex('slh0'), ringIfindex: ifNametoindex('slr0'), laneIfindex: 0, exitIfindex: 0, poolIfindex: isPooled ? ifNametoindex('slrp') : 0 }, firstColour >>> 0);
    this.cells.setMemberColour(member, firstColour >>> 0);
    this.cells.setFlags(this.nic, NIC_FLAG.protected | NIC_FLAG.ready);
    mapUpdate(object.maps.get('ports')!, u32(ifNametoindex('mem0')), u32(this.nic));
    new Near(map('near'), map('vlans')).put('ports', { key: ifNametoindex('mem0'), value: this.nic });
    const key = new Uint8Array(12);
    key.set(u32(bridge));
    key.set(MEMBER, 6);
    mapUpdate(object.maps.get('macs')!, key, u32(this.nic));
    for (const [program, device] of [['sink', 'slr0'], ['sink', 'slrp'], ['release', 'slh0'], ['classify', 'mem0']] as const) {
      linkCreate(object.programs.get(program)!, ifNametoindex(device), TCX_INGRESS, true);
    }
    this.plane = new HoldLink({ cpu: 1, pins: { groups: `${this.#pins}/groups`, nics: `${this.#pins}/nics`, lanes: `${this.#pins}/lanes`, queues: `${this.#pins}/queues` } });
    this.plane.onFact((fact) => this.facts.push(fact));
    this.outsider = new PacketPort({ namespace: HERE, device: 'out1' });
    this.member = new PacketPort({ namespace: HERE, device: 'mem1', bypass: true });
  }

  async open(bytes: number, highWater = 0.75): Promise<void> {
    await this.plane.open(GROUP, { holdDevice: 'slh0', ringDevice: 'slr0', ...(this.#pool === undefined ? {} : { poolDevice: this.#pool }), bytes, highWater, colour: colour(this.#open), epoch: epoch(1), newest: colour(this.#open) });
  }
  /** Seals the open colour and returns it. */
  cut(): number {
    const sealed = this.#open++;
    this.plane.advance(GROUP, colour(this.#open), epoch(this.#open - this.#first + 1));
    this.cells.setColour(GROUP, this.#open >>> 0);
    return sealed;
  }
  commit(upTo: number): void {
    this.cells.setCommit(GROUP, upTo >>> 0);
    this.plane.release(GROUP, colour(upTo));
  }
  async restore(restored: number): Promise<void> {
    this.#open++;
    this.cells.setColour(GROUP, this.#open >>> 0);
    this.cells.setCommit(GROUP, restored >>> 0);
    await this.plane.restore(GROUP, colour(restored), colour(this.#open), epoch(1));
  }
  get counters(): ReturnType<HoldLink['counters']> {
    return this.plane.counters(GROUP);
  }
  /** heldIn, heldOut, heldGone of the member's nic. */
  get queue(): { in: bigint; out: bigint; gone: bigint } {
    const cell = (offset: number): bigint => this.#nicCells[(this.nic * NIC.size + offset) >> 3]!;
    return { in: cell(NIC.heldIn), out: cell(NIC.heldOut), gone: cell(NIC.heldGone) };
  }
  releasedUpTo(): number | undefined {
    return this.facts.flatMap((fact) => (fact.kind === 'released' ? [fact.colour] : [])).at(-1);
  }
  async close(): Promise<void> {
    await this.plane.stop();
    this.outsider.close();
    this.member.close();
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for something that must come; its bound is for a hung test, not a measurement. */
export async function until(what: string, is: () => boolean, msMax = 20_000): Promise<void> {
  for (const end = Date.now() + msMax; !is(); await sleep(1)) {
    if (Date.now() > end) throw new Error(`it did not happen: ${what}`);
  }
}

export function frameOf(length: number, tags: readonly number[], fill: (at: number) => number, type = 0x88b5): Uint8Array {
  const head = 14 + 4 * tags.length;
  const bytes = new Uint8Array(Math.max(length, head));
  for (let i = head; i < bytes.length; i++) bytes[i] = fill(i);
  bytes.set(OUTSIDER, 0);
  bytes.set(MEMBER, 6);
  const view = new DataView(bytes.buffer);
  tags.forEach((tag, i) => { view.setUint32(12 + 4 * i, tag); });
  view.setUint16(head - 2, type);
  return bytes;
}
