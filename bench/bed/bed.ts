/**
 * A test bed: one virtual host with a bridge, members and an outsider, all in namespaces of its own.
 *
 *   sl-<id>-m1           sl-<id>-host                                 sl-<id>-out
 *   eth0 ══ veth ══ port1 ─┐
 *        (tap held by us) port2 ─┤ br0 ├─ uplink ══════ veth ══════ eth0
 *                        port3 ─┘
 *
 * A member is a veth into a namespace (a real TCP stack, packet sockets) or a tap whose other end
 * this process holds (exact control of the bytes). Several beds live side by side. `close()` ends
 * and removes what the bed made and nothing else; call it in `finally`. For the case that the
 * program is told to end, see abandon.ts.
 *
 * The bridge has no address and IPv6 is off everywhere: nobody speaks but the test.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leaves, settled, type Leaving } from './abandon.ts';
import { ipBatch, namespacePath, run } from './commands.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import type { FramePort } from './frame-port.ts';
import { inNamespace } from './libc.ts';
import { PacketPort } from './packet-port.ts';
import { ipBytes, macBytes, type ProbeAddress } from './probe.ts';
import { Tap } from './tap.ts';

export interface BedOptions {
  readonly members: readonly ('tap' | 'veth')[];
  readonly mtu?: number;
  /** Multicast snooping of the bridge; off by default: its timers make runs differ. */
  readonly snooping?: boolean;
  /** Address the stacks of veth members and outsider (10.81.0.0/16); default true. */
  readonly addresses?: boolean;
  readonly tapVnetHeader?: boolean;
  /** `pcap`: the ports are in no bridge, the daemon bridges them. Default ebpf. */
  readonly plane?: Plane;
}
export type Plane = 'ebpf' | 'pcap';

export interface Place {
  readonly name: string;
  /** Bridge port in the host namespace. */
  readonly port: string;
  /** Namespace of the other end; a tap's other end is this process. */
  readonly namespace: string | undefined;
  readonly mac: string;
  readonly ip: string;
  readonly address: ProbeAddress;
}

/** The outsider's number: the last of its addresses. Members count past it and its /24's broadcast. */
const OUTSIDER = 254;

let beds = 0;

export class Bed {
  readonly id: string;
  readonly host: string;
  readonly members: readonly Place[];
  readonly outsider: Place;
  readonly directory: string;
  readonly #options: BedOptions;
  readonly #namespaces: string[] = [];
  readonly #leaving: Leaving;
  readonly #ports: FramePort[] = [];
  readonly #taps = new Map<string, Tap>();
  #daemon: Daemon | undefined;

  private constructor(options: BedOptions) {
    this.#options = options;
    this.id = `${process.pid}-${Date.now().toString(36).slice(-4)}${beds++}`;
    this.host = `sl-${this.id}-host`;
    this.directory = mkdtempSync(join(tmpdir(), `sl-${this.id}-`));
    this.#leaving = { id: this.id, namespaces: this.#namespaces, directory: this.directory };
    leaves(this.#leaving);
    this.members = options.members.map((kind, i) =>
      place(`m${i + 1}`, `port${i + 1}`, kind === 'veth' ? `sl-${this.id}-m${i + 1}` : undefined, i + 1 < OUTSIDER ? i + 1 : i + 4),
    );
    this.outsider = place('out', 'uplink', `sl-${this.id}-out`, OUTSIDER);
  }

  get plane(): Plane {
    return this.#options.plane ?? 'ebpf';
  }

  static async create(options: BedOptions): Promise<Bed> {
    const bed = new Bed(options);
    try {
      await bed.#build();
      return bed;
    } catch (error) {
      await bed.close();
      throw error;
    }
  }

  member(i: number): Place {
    const member = this.members[i];
    if (member === undefined) throw new Error(`the bed has no member ${i}`);
    return member;
  }

  /** The tap of member `i`, held by this process. */
  tap(i: number): Tap {
    const tap = this.#taps.get(this.member(i).port);
    if (tap === undefined) throw new Error(`member ${i} is not a tap`);
    return tap;
  }

  /** A member's own end: its tap, or a packet socket in its namespace. */
  end(i: number): FramePort {
    const { namespace } = this.member(i);
    return namespace === undefined ? this.tap(i) : this.#packet(namespace, 'eth0');
  }

  /** A packet socket at the outsider: the outside oracle's eye, and an outside sender. */
  outside(device = 'eth0'): PacketPort {
    return this.#packet(this.outsider.namespace ?? this.host, device);
  }

  /** Destroys member `i`'s tap, as a VM that ends does. What is still written to it is refused. */
  deleteTap(i: number): void {
    this.tap(i).close();
  }

  /** Destroys member `i`'s tap and makes a new one of the same name, as a restarted VM does. */
  async replaceTap(i: number): Promise<Tap> {
    this.tap(i).close();
    const tap = this.#openTap(this.member(i).port);
    await ipBatch(this.host, this.#portLines(this.member(i).port));
    return tap;
  }

  /** The group's file for a daemon, all members protected together. */
  groupFile(group: string, extra: object = {}): object {
    const members = this.members.map(({ name, port, mac }) => ({ name, port, mac }));
    return { group, commit: 'explicit', members, ...extra };
  }

  daemon(options: Partial<Pick<DaemonOptions, 'attach' | 'lanes' | 'state' | 'cpu' | 'tcp' | 'auditFile' | 'hooks'>> = {}): Daemon {
    this.#daemon ??= new Daemon({
      namespace: this.host, directory: this.directory, pins: `/sys/fs/bpf/sluice-${this.id}`,
      ...(this.plane === 'pcap' ? { pcap: { ports: [...this.members, this.outsider].map(({ port }) => port), memory: `/dev/shm/sluice-${this.id}` } } : {}),
      ...options,
    });
    return this.#daemon;
  }

  async close(): Promise<void> {
    await this.#daemon?.close();
    for (const port of [...this.#ports, ...this.#taps.values()]) port.close();
    for (let name = this.#namespaces.at(-1); name !== undefined; name = this.#namespaces.at(-1)) {
      await run('ip', ['netns', 'del', name]);
      this.#namespaces.pop(); // gone only now: abandon.ts would have to take it down until then
    }
    rmSync(this.directory, { recursive: true, force: true });
    settled(this.#leaving);
  }

  async #build(): Promise<void> {
    for (const name of [this.host, ...this.members.map((m) => m.namespace), this.outsider.namespace]) {
      if (name === undefined) continue;
      await run('ip', ['netns', 'add', name]);
      this.#namespaces.push(name);
      inNamespace(namespacePath(name), quiet);
    }
    if (this.plane === 'ebpf') await this.#bridge();
    for (const each of [...this.members, this.outsider]) await this.#connect(each);
    if (this.#options.addresses !== false) await this.#address();
  }

  async #bridge(): Promise<void> {
    const snooping = this.#options.snooping === true ? 1 : 0;
    await ipBatch(this.host, [
      `link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping ${snooping}`,
      `link set br0 mtu ${this.#options.mtu ?? 1500} up`,
    ]);
  }

  async #connect(each: Place): Promise<void> {
    if (each.namespace === undefined) {
      this.#openTap(each.port);
    } else {
      await ipBatch(this.host, [`link add ${each.port} type veth peer name eth0 address ${each.mac} netns ${each.namespace}`]);
      await ipBatch(each.namespace, ['link set lo up', `link set eth0 mtu ${this.#options.mtu ?? 1500} arp off up`]);
    }
    await ipBatch(this.host, this.#portLines(each.port));
  }

  /** Addresses and, so that nobody needs ARP, every neighbour. */
  async #address(): Promise<void> {
    const all = [...this.members, this.outsider];
    for (const each of all) {
      if (each.namespace === undefined) continue;
      await ipBatch(each.namespace, [
        `link set eth0 arp on`,
        `addr add ${each.ip}/16 dev eth0`,
        ...all.filter((other) => other !== each).map((other) => `neigh replace ${other.ip} lladdr ${other.mac} dev eth0 nud permanent`),
      ]);
    }
  }

  #openTap(port: string): Tap {
    const tap = new Tap({
      namespace: namespacePath(this.host), device: port, vnetHeader: this.#options.tapVnetHeader ?? false,
    });
    this.#taps.set(port, tap);
    return tap;
  }

  #portLines(port: string): string[] {
    const master = this.plane === 'ebpf' ? ' master br0' : '';
    return [`link set ${port} mtu ${this.#options.mtu ?? 1500} txqueuelen 20000${master}`, `link set ${port} up`];
  }

  #packet(namespace: string, device: string): PacketPort {
    const port = new PacketPort({ namespace: namespacePath(namespace), device });
    this.#ports.push(port);
    return port;
  }
}

export function place(name: string, port: string, namespace: string | undefined, number: number): Place {
  const [high, low] = [number >> 8, number & 255];
  const mac = `02:51:00:00:${[high, low].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`;
  const ip = `10.81.${high}.${low}`;
  return { name, port, namespace, mac, ip, address: { mac: macBytes(mac), ip: ipBytes(ip) } };
}

/**
 * In the thread's namespace: no IPv6 chatter from any device, present or future, and no br_netfilter
 * (it drops frames with a bad IP header and slows every one; `sluice doctor` reports it).
 */
export function quiet(): void {
  for (const which of ['all', 'default']) writeFileSync(`/proc/sys/net/ipv6/conf/${which}/disable_ipv6`, '1');
  for (const table of ['ip', 'ip6', 'arp']) {
    const file = `/proc/sys/net/bridge/bridge-nf-call-${table}tables`;
    if (existsSync(file)) writeFileSync(file, '0');
  }
}
