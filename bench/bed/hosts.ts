/**
 * A bed of several hosts: each a namespace with a bridge and an uplink, a switch between them, an
 * outsider. Members are taps or veths, each on the host it is asked for.
 *
 *   sl-<id>-h1                        sl-<id>-switch                     sl-<id>-out
 *   tap1 ─┐                            ┌─ p1                              eth0
 *   port2 ┴─ br0 ─ uplink ═══════════ p1 ─┐                                ║
 *   sl-<id>-h2                            ├─ sw0 ────────────────────── pout
 *   tap3 ─── br0 ─ uplink ═══════════ p2 ─┘
 *
 * The switch is a bridge of the kernel and knows no VLANs (this kernel may lack them); what an
 * operator's switch does for the groups' VLAN, one rule does here: no frame with an outer 802.1ad tag
 * goes to the outsider's port or comes from it. `trunk(true)` takes the rule away: then the
 * outsider hears and forges tagged frames, as on a switch that was set up wrongly.
 *
 * `routed`: besides, each host has an address in a subnet of its own behind a router, for what hosts say
 * to each other by IP:
 *
 *   sl-<id>-h1: road 10.78.1.1 ═ r1 10.78.1.254 ─ [sl-<id>-router] ─ r2 10.78.2.254 ═ sl-<id>-h2: road 10.78.2.1
 *
 * Uplinks and switch have room for three tags above the members' MTU. Nobody has IPv6 or speaks by
 * himself. `close()` removes what the bed made; a signal: abandon.ts.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leaves, settled, type Leaving } from './abandon.ts';
import { place, quiet, type Place } from './bed.ts';
import { ipBatch, namespacePath, run, runIn } from './commands.ts';
import { inNamespace } from './libc.ts';
import { PacketPort } from './packet-port.ts';
import { Tap } from './tap.ts';

export interface HostsOptions {
  /** Kind of each member, and the host it lives on (0 = the first). */
  readonly members: readonly { readonly kind: 'tap' | 'veth'; readonly host: number }[];
  readonly hosts: number;
  /** Of the members; default 1500. */
  readonly mtu?: number;
  /** Also a network of their own for the hosts, each in another subnet, a router between. */
  readonly routed?: boolean;
}
export interface HomedPlace extends Place {
  readonly host: number;
}

/** Of the roads: the members', a tag of their own and VXLAN's outer headers. */
const ROAD_BYTES = 54;
const OUTSIDER = 254;
/** Of the uplinks: the members' and three tags. */
const TAGS_BYTES = 12;
const RULES = 'add table bridge sl\nadd chain bridge sl cross { type filter hook forward priority 0; }\n'
  + 'add rule bridge sl cross iifname "pout" ether type 8021ad drop\nadd rule bridge sl cross oifname "pout" ether type 8021ad drop\n';

let beds = 0;

export class HostsBed {
  readonly id: string;
  readonly hosts: readonly string[];
  readonly members: readonly HomedPlace[];
  readonly outsider: Place;
  readonly directory: string;
  /** The switch's namespace. */
  readonly switch: string;
  /** The router's namespace, where there is one. */
  readonly router: string;
  readonly #options: HostsOptions;
  readonly #namespaces: string[] = [];
  readonly #leaving: Leaving;
  readonly #taps = new Map<number, Tap>();
  readonly #ports: PacketPort[] = [];

  private constructor(options: HostsOptions) {
    this.#options = options;
    this.id = `${process.pid}-${Date.now().toString(36).slice(-4)}h${beds++}`;
    this.hosts = Array.from({ length: options.hosts }, (_, i) => `sl-${this.id}-h${i + 1}`);
    this.switch = `sl-${this.id}-switch`;
    this.router = `sl-${this.id}-router`;
    this.directory = mkdtempSync(join(tmpdir(), `sl-${this.id}-`));
    this.#leaving = { id: this.id, namespaces: this.#namespaces, directory: this.directory, pins: this.hosts.map((_, i) => this.pins(i)) };
    leaves(this.#leaving);
    this.members = options.members.map(({ kind, host }, i) =>
      ({ ...place(`m${i + 1}`, `port${i + 1}`, kind === 'veth' ? `sl-${this.id}-m${i + 1}` : undefined, i + 1), host }));
    this.outsider = place('out', 'pout', `sl-${this.id}-out`, OUTSIDER);
  }

  static async create(options: HostsOptions): Promise<HostsBed> {
    const bed = new HostsBed(options);
    try {
      await bed.#build();
      return bed;
    } catch (error) {
      await bed.close();
      throw error;
    }
  }

  host(i: number): string {
    const host = this.hosts[i];
    if (host === undefined) throw new Error(`the bed has no host ${i}`);
    return host;
  }
  /** Where a daemon of host `i` pins. */
  pins(i: number): string {
    return `/sys/fs/bpf/sluice-${this.id}-h${i + 1}`;
  }
  member(i: number): HomedPlace {
    const member = this.members[i];
    if (member === undefined) throw new Error(`the bed has no member ${i}`);
    return member;
  }
  tap(i: number): Tap {
    const tap = this.#taps.get(i);
    if (tap === undefined) throw new Error(`member ${i} is not a tap`);
    return tap;
  }
  /** The outsider's eye and mouth. */
  outside(): PacketPort {
    return this.#packet(this.outsider.namespace ?? '', 'eth0');
  }
  /** At host `i`'s uplink: what it sends and what it gets. */
  wire(i: number): PacketPort {
    return this.#packet(this.host(i), 'uplink');
  }
  /** On the switch, at the port to host `i`: what is sent there is what the host's uplink gets. */
  port(i: number): PacketPort {
    return this.#packet(this.switch, `p${i + 1}`);
  }
  /** Whether the outsider's port carries the groups' VLANs. */
  async trunk(open: boolean): Promise<void> {
    await runIn(this.switch, 'nft', ['-f', '-'], open ? 'flush ruleset\n' : RULES);
  }
  /** Host `i`'s address on the routed network, and everybody's by name. */
  road(i: number): string {
    return `10.78.${i + 1}.1`;
  }
  roads(): Record<string, string> {
    return Object.fromEntries(this.hosts.map((_, i) => [`h${i + 1}`, this.road(i)]));
  }
  /** On the router, at the road to host `i`: what the hosts say to each other by IP. */
  crossing(i: number): PacketPort {
    return this.#packet(this.router, `r${i + 1}`);
  }
  /** A device of host `i`, to put frames into it as the host itself would. */
  device(i: number, name: string): PacketPort {
    return this.#packet(this.host(i), name);
  }
  /** Host `i`'s cable. */
  async cable(i: number, plugged: boolean): Promise<void> {
    await ipBatch(this.switch, [`link set p${i + 1} ${plugged ? 'up' : 'down'}`]);
  }

  async close(): Promise<void> {
    for (const port of [...this.#ports, ...this.#taps.values()]) port.close();
    for (let name = this.#namespaces.at(-1); name !== undefined; name = this.#namespaces.at(-1)) {
      await run('ip', ['netns', 'del', name]);
      this.#namespaces.pop(); // gone only now: abandon.ts would have to take it down until then
    }
    rmSync(this.directory, { recursive: true, force: true });
    settled(this.#leaving);
  }

  async #build(): Promise<void> {
    const away = [...this.members, this.outsider].flatMap(({ namespace }) => namespace ?? []);
    for (const name of [this.switch, ...(this.#options.routed === true ? [this.router] : []), ...this.hosts, ...away]) {
      await run('ip', ['netns', 'add', name]);
      this.#namespaces.push(name);
      inNamespace(namespacePath(name), quiet);
    }
    const mtu = this.#options.mtu ?? 1500;
    const wide = mtu + TAGS_BYTES;
    await ipBatch(this.switch, [`link add sw0 mtu ${wide} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`, `link set sw0 up`]);
    for (const [i, host] of this.hosts.entries()) {
      await ipBatch(this.switch, [`link add p${i + 1} mtu ${wide} type veth peer name uplink mtu ${wide} netns ${host}`, `link set p${i + 1} master sw0 up`]);
      await ipBatch(host, [`link add br0 mtu ${mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`, 'link set br0 up', 'link set uplink master br0 up']);
    }
    if (this.#options.routed === true) await this.#pave(mtu + ROAD_BYTES);
    await this.#join(this.switch, this.outsider, 'sw0', mtu);
    for (const [i, member] of this.members.entries()) {
      const host = this.host(member.host);
      if (member.namespace !== undefined) {
        await this.#join(host, member, 'br0', mtu);
        continue;
      }
      this.#taps.set(i, new Tap({ namespace: namespacePath(host), device: member.port }));
      await ipBatch(host, [`link set ${member.port} mtu ${mtu} txqueuelen 20000 master br0 up`]);
    }
    await this.trunk(false);
    await this.#address();
  }

  async #pave(mtu: number): Promise<void> {
    inNamespace(namespacePath(this.router), () => writeFileSync('/proc/sys/net/ipv4/ip_forward', '1'));
    for (const [i, host] of this.hosts.entries()) {
      const at = `r${i + 1}`;
      await ipBatch(this.router, [`link add ${at} mtu ${mtu} type veth peer name road mtu ${mtu} netns ${host}`, `addr add 10.78.${i + 1}.254/24 dev ${at}`, `link set ${at} up`]);
      await ipBatch(host, [`addr add ${this.road(i)}/24 dev road`, 'link set road up', `route add 10.78.0.0/16 via 10.78.${i + 1}.254`]);
    }
  }
  async #join(at: string, each: Place, bridge: string, mtu: number): Promise<void> {
    await ipBatch(at, [`link add ${each.port} mtu ${mtu} type veth peer name eth0 mtu ${mtu} address ${each.mac} netns ${each.namespace ?? ''}`, `link set ${each.port} txqueuelen 20000 master ${bridge} up`]);
    await ipBatch(each.namespace, ['link set lo up', 'link set eth0 up']);
  }
  async #address(): Promise<void> {
    const all = [...this.members, this.outsider];
    for (const each of all) {
      if (each.namespace === undefined) continue;
      const others = all.filter((other) => other !== each);
      await ipBatch(each.namespace, [`addr add ${each.ip}/16 dev eth0`, ...others.map(({ ip, mac }) => `neigh replace ${ip} lladdr ${mac} dev eth0 nud permanent`)]);
    }
  }
  #packet(namespace: string, device: string): PacketPort {
    const port = new PacketPort({ namespace: namespacePath(namespace), device });
    this.#ports.push(port);
    return port;
  }
}
