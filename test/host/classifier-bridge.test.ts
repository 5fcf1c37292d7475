import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { bindSocket, close, ifNametoindex, send as sendOn, setOption, socket } from '../../bench/bed/libc.ts';
import { PacketPort } from '../../bench/bed/packet-port.ts';
import { MAPS, MARK, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, NIC, PROGRAMS, STAMP_CLASS, stampPack } from '../../classifier/abi.ts';
import type { Program } from '../../classifier/abi.ts';
import { Cells } from '../../classifier/cells.ts';
import { KernelGate } from '../../classifier/attach.ts';
import type { GateEvent } from '../../classifier/attach.ts';
import { macParse, macWrite } from '../../classifier/frame.ts';
import type { SpecView } from '../../classifier/kernel.ts';
import { Kernel } from '../../proxy/edge/kernel.ts';
import { Netlink } from '../../proxy/edge/netlink.ts';
import { EdgeError } from '../../proxy/ports.ts';
import type { Gate } from '../../proxy/ports.ts';
import { HERE, enterOwnNamespace, ip, ownPins } from '../support/own-namespace.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * The gate over a real bridge, real frames through it. Nobody releases here: what is held goes
 * into the hold pair and dies at the sink.
 *
 *   VM a ═ a0 ┐         ┌ o0 ═ outsider
 *   VM b ═ b0 ┴── br0 ──┘
 */
const MAC = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b', o: '02:00:00:00:00:99', all: 'ff:ff:ff:ff:ff:ff' };
const HOST = '02:00:00:00:00:77';
const NAMES = ['a', 'b', 'o'] as const;
type Name = (typeof NAMES)[number];
const spec: SpecView = {
  group: 'web', foreignSource: 'hold', intraPath: 'redirect',
  members: [
    { name: 'a', nics: [{ port: 'a0', mac: MAC.a, vlan: 0 }] },
    { name: 'b', nics: [{ port: 'b0', mac: MAC.b, vlan: 0 }] },
  ],
};
const members = [{ name: 'a', colour: 7, ready: true }, { name: 'b', colour: 7, ready: true }];
const fail = (code: EdgeError['code'], message: string, fix: string, cause?: unknown): Error => new EdgeError(code, message, fix, cause);

function addPort(name: Name): void {
  ip(`link add ${name}0 type veth peer name ${name}1`);
  ip(`link set ${name}1 addrgenmode none arp off up`);
  ip(`link set ${name}0 addrgenmode none master br0 up`);
}
/** As any process with CAP_NET_ADMIN can. */
function sendMarked(device: string, frame: Uint8Array, mark: number): boolean {
  const fd = socket(17, 3, 0); // AF_PACKET, SOCK_RAW
  try {
    const address = new DataView(new ArrayBuffer(20));
    address.setUint16(0, 17, true);
    address.setInt32(4, ifNametoindex(device), true);
    bindSocket(fd, new Uint8Array(address.buffer));
    setOption(fd, 1, 36, mark); // SOL_SOCKET, SO_MARK
    return sendOn(fd, frame, frame.length, 0) === frame.length;
  } finally {
    close(fd);
  }
}
/** Waits for something that comes of itself; the test's own time limit is the bound. */
async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe.skipIf(UNPRIVILEGED !== undefined).each(['tcx', 'clsact'] as const)('a gate over a bridge (%s)', (attach) => {
  const pins = ownPins(`bridge-${attach}`);
  const events: GateEvent[] = [];
  let devices: Netlink;
  let kernel: Kernel<Program>;
  let gate: KernelGate;
  const ports = new Map<string, PacketPort>();
  let count = 0;

  const open = (): void => {
    kernel = new Kernel<Program>({
      object: readFileSync('classifier/classify.bpf.o'), maps: MAPS, programs: PROGRAMS,
      mark: { mask: MARK_MASK_DEFAULT, shift: MARK_SHIFT_DEFAULT }, pinDir: pins.dir, attach, owner: `sluice test ${process.pid}`,
    });
    gate = new KernelGate(kernel, fail);
    gate.onEvent((event) => events.push(event));
  };
  const listen = (device: string): PacketPort => {
    ports.get(device)?.close();
    const port = new PacketPort({ namespace: HERE, device });
    ports.set(device, port);
    return port;
  };
  const portOf = (device: string): PacketPort => ports.get(device) ?? listen(device);
  const numbered = (to: string, source: string): Uint8Array => {
    const frame = new Uint8Array(60);
    macWrite(macParse(to), frame, 0);
    macWrite(macParse(source), frame, 6);
    frame.set([0x88, 0xb5], 12);
    count += 1;
    new DataView(frame.buffer).setUint32(20, count);
    return frame;
  };
  const ends = (): Name[] => {
    const there = new Set(devices.links().map(({ name }) => name));
    return NAMES.filter((name) => there.has(`${name}1`));
  };
  /** Takes what arrives at a VM's end until `last` is there; how often `frame` was. */
  const copiesUntil = (device: string, frame: Uint8Array, last: Uint8Array, waitMs: number): number | undefined => {
    let copies = 0;
    let ended = false;
    for (const until = performance.now() + waitMs; !ended && performance.now() < until; ) {
      portOf(device).drain((got) => {
        if (Buffer.compare(got, frame) === 0) copies += 1;
        if (Buffer.compare(got, last) === 0) ended = true;
      });
    }
    return ended ? copies : undefined;
  };
  /** A port that has just come up forwards a moment later: the host's broadcast shows when. */
  const awaitForwarding = (): void => {
    for (const name of ends()) {
      for (let tries = 0; ; tries += 1) {
        const probe = numbered(MAC.all, HOST);
        portOf('br0').send(probe);
        if (copiesUntil(`${name}1`, probe, probe, 20) !== undefined) break;
        if (tries === 1000) throw new Error(`the bridge does not forward to ${name}`);
      }
    }
  };
  /**
   * Sends one frame that is told from all others, and says at which VM ends it came out. The host's
   * own broadcast follows on the same way; when it is there, the frame before it would be too.
   */
  const send = (from: Name, to: string, source: string = MAC[from], put = (bytes: Uint8Array): boolean => portOf(`${from}1`).send(bytes)): Record<Name, number> => {
    awaitForwarding();
    const frame = numbered(to, source);
    const last = numbered(MAC.all, HOST);
    expect(put(frame)).toBe(true);
    expect(portOf('br0').send(last)).toBe(true);
    const seen = { a: 0, b: 0, o: 0 };
    for (const name of ends()) {
      const copies = copiesUntil(`${name}1`, frame, last, 20_000);
      if (copies === undefined) throw new Error(`the host's frame did not reach ${name}`);
      seen[name] = copies;
    }
    return seen;
  };
  const statsOf = (device: string) => {
    const found = gate.stats().find((stats) => stats.device === device);
    if (found === undefined) throw new Error(`no counters of ${device}`);
    return found;
  };
  const counters = (port: string) => {
    const { verdicts } = statsOf(port);
    return Object.fromEntries(Object.entries(verdicts).filter(([, { frames }]) => frames > 0).map(([name, { frames }]) => [name, frames]));
  };
  const blocked = (name: 'leakBlocked' | 'confined' | 'unvetted'): number => gate.stats().reduce((sum, { counts }) => sum + counts[name], 0);

  beforeAll(() => {
    if (attach === 'tcx') enterOwnNamespace();
    devices = new Netlink();
  });
  const build = (): void => {
    ip('link add br0 type bridge mcast_snooping 0 ageing_time 0');
    ip('link set br0 addrgenmode none up');
    for (const name of NAMES) addPort(name);
    open();
    for (const name of NAMES) listen(`${name}1`);
    events.length = 0;
  };
  afterEach(async () => {
    for (const port of ports.values()) port.close();
    ports.clear();
    await gate.detach(0);
    await gate.close();
    pins.remove();
    for (const device of ['br0', 'a0', 'b0', 'o0']) ip(`link del ${device}`);
  });

  test('members talk by redirect with MACs the bridge never learnt; nothing else leaves', async () => {
    build();
    expect(send('a', MAC.o).o).toBe(1); // before protection: the plain bridge
    const { nics, holdDevice } = await gate.attach(0, spec, 7, members);
    expect(holdDevice).toBe('slh0');
    expect(gate.ready()).toEqual([]);
    const ring = listen('slr0');
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
    expect(send('b', MAC.a)).toEqual({ a: 1, b: 0, o: 0 });
    expect(send('a', MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.all)).toEqual({ a: 0, b: 1, o: 0 });
    expect(send('a', '01:80:c2:00:00:0e')).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.b, MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('o', MAC.a)).toEqual({ a: 1, b: 0, o: 0 });
    let held = 0;
    ring.drain(() => { held += 1; });
    expect(held).toBe(4);
    expect(counters('a0')).toEqual({ intra: 1, held: 3, split: 1 });
    const cell = (field: number): number => Number(new DataView(kernel.cells.nics).getBigUint64((nics[0]?.nic ?? 0) * NIC.size + field, true));
    expect([cell(NIC.heldIn), cell(NIC.heldOut)]).toEqual([4, 0]);
    expect(blocked('leakBlocked') + blocked('confined') + blocked('unvetted')).toBe(0);
    await gate.detach(0);
    expect(send('a', MAC.o).o).toBe(1); // after it: the plain bridge again
  });

  test('intraPath bridge: through the bridge, confined to the group', async () => {
    build();
    await gate.attach(0, { ...spec, intraPath: 'bridge' }, 7, members);
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
    ip(`link set b0 down`);
    ip(`link set b0 up`);
    execFileSync('bridge', ['fdb', 'del', MAC.b, 'dev', 'b0', 'master']);
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 }); // flooded, and stopped everywhere else
    expect(blocked('confined')).toBeGreaterThan(0);
  });

  test('a member ahead: early towards it is queued, late from behind is recorded and delivered', async () => {
    build();
    const { nics } = await gate.attach(0, spec, 7, members);
    const a = nics.find(({ member }) => member === 'a')?.nic ?? 0;
    const ring = listen('slr0');
    gate.setMemberColour(0, 'b', 8);
    expect(send('b', MAC.a)).toEqual({ a: 0, b: 0, o: 0 });
    expect(counters('b0')).toEqual({ early: 1 });
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
    expect(counters('a0')).toEqual({ late: 1 });
    let frames = 0;
    ring.drain(() => { frames += 1; });
    expect(frames).toBe(2);
    gate.setColour(0, 8);
    expect(send('a', MAC.b).b).toBe(1);
    expect(send('b', MAC.a).a).toBe(0); // what is queued goes first (I6)
    const queued = (field: number): number => Number(new DataView(kernel.cells.nics).getBigUint64(a * NIC.size + field, true));
    expect([queued(NIC.earlyIn), queued(NIC.earlyOut)]).toEqual([2, 0]);
  });

  test('the guards stop what a removed classifier lets by', async () => {
    build();
    const { nics } = await gate.attach(0, spec, 7, members);
    kernel.unhook({ ifindex: nics[0]?.ifindex ?? 0, side: 'ingress', program: 'classify' });
    expect(send('a', MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.all)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.o, MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('o', MAC.all, MAC.a)).toEqual({ a: 0, b: 0, o: 0 });
    expect(blocked('leakBlocked')).toBeGreaterThan(0);
    await gate.inspect();
    expect(events.some((event) => event.kind === 'leak-blocked')).toBe(true);
    expect(gate.ready()).not.toEqual([]);
    await gate.reconcile();
    expect(gate.ready()).toEqual([]);
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
  });

  test('a port deleted and made again is unheard until it is classified, then a member as before', async () => {
    build();
    await gate.attach(0, spec, 7, members);
    ip('link del a0');
    addPort('a');
    listen('a1');
    listen('br0');
    expect(send('a', MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.o, MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 0, o: 0 });
    expect(blocked('unvetted')).toBeGreaterThan(0);
    gate.start(); // from here on by itself
    await gate.reconcile();
    expect(gate.ready()).toEqual([]);
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
    expect(send('b', MAC.a)).toEqual({ a: 1, b: 0, o: 0 });
    expect(send('a', MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    ip('link del b0');
    await until(() => events.some((event) => event.kind === 'port-lost'));
    expect(gate.ready()).toEqual(['port b0 is missing or in no bridge']);
    expect(send('a', MAC.o)).toEqual({ a: 0, b: 0, o: 0 });
    addPort('b');
    listen('b1');
    await until(() => events.some((event) => event.kind === 'port-back'));
    expect(send('a', MAC.b)).toEqual({ a: 0, b: 1, o: 0 });
    expect(events.filter((event) => event.kind === 'port-lost' || event.kind === 'port-back')).toEqual([
      { kind: 'port-lost', id: 0, member: 'b', port: 'b0' }, { kind: 'port-back', id: 0, member: 'b', port: 'b0' },
    ]);
  });

  test('a restart takes over what is pinned: no frame leaves in between, counters go on', async () => {
    build();
    await gate.attach(0, spec, 7, members);
    expect(send('a', MAC.o).o).toBe(0);
    await gate.close();
    expect(send('a', MAC.o).o).toBe(0); // nobody is there
    expect(send('a', MAC.b).b).toBe(1);
    open();
    expect(send('a', MAC.o).o).toBe(0); // loaded, not attached yet
    const again = await gate.attach(0, spec, 3000, members);
    await gate.settle();
    expect(gate.ready()).toEqual([]);
    expect([...kernel.hooks(kernel.counted())].every(({ fresh }) => fresh)).toBe(true);
    expect(send('a', MAC.o).o).toBe(0);
    expect(send('a', MAC.b).b).toBe(1);
    expect(counters('a0')).toEqual({ held: 4, intra: 2 });
    expect(again.nics.map(({ nic }) => nic)).toEqual([1, 2]);
  });

  test('groups that the journal does not name are let go of when the start is over', async () => {
    build();
    await gate.attach(0, spec, 7, members);
    await gate.close();
    open();
    expect(send('a', MAC.o).o).toBe(0);
    await gate.settle();
    expect(send('a', MAC.o).o).toBe(1);
    expect([...kernel.hooks(kernel.counted())]).toEqual([]);
  });

  test('a released mark is believed only of what the release program let go', async () => {
    build();
    const { nics } = await gate.attach(0, spec, 7, members);
    const released = MARK.released << MARK_SHIFT_DEFAULT;
    expect(send('a', MAC.o, MAC.a, (frame) => sendMarked('a1', frame, released))).toEqual({ a: 0, b: 0, o: 0 });
    expect(counters('a0')).toEqual({ held: 1 });
    const stamp = stampPack(STAMP_CLASS.held, nics[0]?.nic ?? 0, 0, 7) | 0;
    expect(send('a', MAC.o, MAC.a, (frame) => sendMarked('slr0', frame, stamp))).toEqual({ a: 0, b: 0, o: 0 });
    expect(statsOf('slh0').counts.refused).toBe(1);
    gate.setCommit(0, 7);
    expect(send('a', MAC.o, MAC.a, (frame) => sendMarked('slr0', frame, stamp)).o).toBe(1);
    expect(counters('a0')).toEqual({ held: 1, released: 1 });
    expect(send('a', MAC.o, MAC.a, (frame) => sendMarked('slr0', frame, 0))).toEqual({ a: 0, b: 0, o: 0 });
    expect(statsOf('slh0').counts.refused).toBe(1);
  });

  const db: SpecView = { ...spec, group: 'db', members: [{ name: 'o', nics: [{ port: 'o0', mac: MAC.o, vlan: 0 }] }] };
  const dbMembers = [{ name: 'o', colour: 3, ready: true }];

  test('a hold pair that was deleted is made again, and said', async () => {
    build();
    await gate.attach(0, spec, 7, members);
    ip('link del slr0');
    expect(send('a', MAC.o).o).toBe(0);
    await gate.attach(1, db, 3, dbMembers);
    expect(events.filter(({ kind }) => kind.startsWith('hold') || kind === 'trouble')).toEqual([{ kind: 'hold-lost', id: 0 }, { kind: 'hold-back', id: 0 }]);
    expect(gate.ready()).toEqual(['the hold pair of group web was lost and its ring is not open again: restart sluiced']);
    const ring = listen('slr0');
    expect(send('a', MAC.o).o).toBe(0);
    expect(send('a', MAC.b).b).toBe(1);
    let held = 0;
    ring.drain(() => { held += 1; });
    expect(held).toBe(1);
    await gate.attach(0, spec, 7, members);
    expect(gate.ready()).toEqual([]);
    await gate.detach(1);
  });

  test('a hold pair that can\'t be made again is the trouble of its group alone', async () => {
    build();
    await gate.attach(0, spec, 7, members);
    await gate.attach(1, db, 3, dbMembers);
    ip('link del slr0');
    ip('link add slh0 type veth peer name slr0');
    ip('link set slh0 alias another');
    ip('link del o0');
    addPort('o');
    listen('o1');
    await gate.reconcile();
    expect(events.filter(({ kind }) => kind === 'trouble')).toHaveLength(1);
    expect(send('o', MAC.all)).toEqual({ a: 0, b: 0, o: 0 });
    expect(counters('o0')).toMatchObject({ split: 1 }); // classified again
    expect(blocked('unvetted')).toBe(0);
    const onlyA = { ...spec, members: spec.members.slice(0, 1) };
    await expect(gate.reattach(0, onlyA, members)).rejects.toThrow('device slh0 exists already');
    await gate.detach(1);
    await expect(gate.attach(1, db, 3, dbMembers)).resolves.toMatchObject({ id: 1 });
    ip('link del slh0');
    await gate.reattach(0, onlyA, members);
    expect(new Cells(kernel.cells).adopted().map(({ mac }) => mac).sort()).toEqual([MAC.a, MAC.o]); // b's was freed
    await gate.detach(1);
  });

  test('what can\'t be attached is refused in one sentence, and nothing is left of it', async () => {
    build();
    const withPort = (port: string): SpecView => ({ ...spec, members: [{ name: 'a', nics: [{ port, mac: MAC.a, vlan: 0 }] }] });
    await expect(gate.attach(0, withPort('nix0'), 7, members)).rejects.toThrow('port nix0 does not exist');
    await expect(gate.attach(0, withPort('a1'), 7, members)).rejects.toThrow('port a1 is not in a bridge');
    await gate.attach(0, spec, 7, members);
    await expect(gate.attach(1, { ...withPort('a0'), group: 'db' }, 7, members)).rejects.toMatchObject({ code: 'port_claimed', message: 'port a0 belongs to group web already' });
    ip('link add slh1 type veth peer name slr1');
    ip('link set slh1 alias another');
    await expect(gate.attach(1, db, 3, dbMembers)).rejects.toThrow('device slh1 exists already');
    ip('link del slh1');
    expect(gate.ready()).toEqual([]);
    expect(send('o', MAC.a)).toEqual({ a: 1, b: 0, o: 0 });
  });
});

test('the gate is what the control side asks for', () => {
  const asGate = (gate: KernelGate): Gate => gate; // compiles, or does not
  expect(asGate).toBeTypeOf('function');
});
