/**
 * Three hosts as namespaces: each a bridge with one member's port and an uplink, a sluiced, and an
 * etcd node; a switch between the uplinks, a network of its own for the ledger, an outsider.
 *
 *    m1 ─ tap ─┐                                        ┌─ tap ─ m3      (and m4 ─ tap2 at h1)
 *          [h1: br ─ uplink] ─ data ─ [switch] ─ data ─ [h3 …]       outsider ─ [switch]
 *               └ mg ───────── ledger ──┘
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leaves, settled, type Leaving } from '../../bench/bed/abandon.ts';
import { ipBatch, run, until } from '../../bench/bed/commands.ts';
import { Daemon } from '../../bench/bed/daemon.ts';
import { Etcd } from '../../bench/bed/etcd.ts';

export const NAMES = ['h1', 'h2', 'h3'] as const;
const id = `sl-${process.pid}-x`;
const ns = (name: string): string => `${id}-${name}`;
const pinsOf = (host: string): string => `/sys/fs/bpf/${id}-${host}`;
const macOf = (i: number): string => `02:00:00:00:33:0${i + 1}`;

export class ThreeHosts {
  readonly directory = mkdtempSync(join(tmpdir(), 'sl-hosts-'));
  readonly daemons: readonly Daemon[];
  readonly etcd: Etcd;
  readonly #namespaces = [ns('sw'), ns('out'), ns('m4'), ...NAMES.flatMap((_, i) => [ns(`h${i + 1}`), ns(`m${i + 1}`)])];

  readonly #leaving: Leaving = { id, namespaces: this.#namespaces, directory: this.directory, pins: NAMES.map(pinsOf) };

  /** `more`: keys of each daemon's settings besides. */
  constructor(more: (host: string) => { readonly isolation?: object } = () => ({})) {
    leaves(this.#leaving);
    const hosts = NAMES.map((name) => ns(name));
    this.etcd = new Etcd({ directory: this.directory, port: 2379, addresses: ['10.77.0.1', '10.77.0.2', '10.77.0.3'], namespaces: hosts });
    this.daemons = NAMES.map((host, i) => {
      const directory = join(this.directory, host);
      mkdirSync(directory);
      return new Daemon({ namespace: ns(host), directory, pins: pinsOf(host), across: { host, uplink: 'uplink', endpoints: [...this.etcd.endpoints.slice(i), ...this.etcd.endpoints.slice(0, i)], ...more(host) } });
    });
  }

  async build(): Promise<void> {
    for (const name of this.#namespaces) await run('ip', ['netns', 'add', name]);
    await ipBatch(ns('sw'), ['link add name data type bridge', 'link add name ledger type bridge', 'link set data up', 'link set ledger up', 'link set lo up']);
    for (const [i, host] of NAMES.entries()) {
      await ipBatch(undefined, [
        `link add uplink netns ${ns(host)} type veth peer name up${i} netns ${ns('sw')}`,
        `link add mg netns ${ns(host)} type veth peer name mg${i} netns ${ns('sw')}`,
        `link add tap netns ${ns(host)} type veth peer name eth0 netns ${ns(`m${i + 1}`)}`,
      ]);
      await ipBatch(ns('sw'), [`link set up${i} master data up`, `link set mg${i} master ledger up`]);
      await ipBatch(ns(host), ['link set lo up', 'link add name br0 type bridge', 'link set uplink master br0 up', 'link set tap master br0 up', 'link set br0 up', `addr add 10.77.0.${i + 1}/24 dev mg`, 'link set mg up', `addr add 10.88.0.${i + 11}/24 dev br0`, `addr add fd88::${i + 11}/64 dev br0 nodad`]);
      await ipBatch(ns(`m${i + 1}`), [`link set eth0 address ${macOf(i)} up`, `addr add 10.88.0.${i + 1}/24 dev eth0`]);
    }
    await ipBatch(undefined, [`link add tap2 netns ${ns('h1')} type veth peer name eth0 netns ${ns('m4')}`]);
    await ipBatch(ns('h1'), ['link set tap2 master br0 up']);
    await ipBatch(ns('m4'), [`link set eth0 address ${macOf(3)} up`, 'addr add 10.88.0.4/24 dev eth0']);
    await ipBatch(undefined, [`link add eth0 netns ${ns('out')} type veth peer name out netns ${ns('sw')}`]);
    await ipBatch(ns('sw'), ['link set out master data up']);
    await ipBatch(ns('out'), ['addr add 10.88.0.100/24 dev eth0', 'addr add fd88::100/64 dev eth0 nodad', 'link set eth0 up']);
    await this.etcd.start();
    await Promise.all(this.daemons.map((daemon) => daemon.start('live')));
    for (const daemon of this.daemons) await until('ready', async () => (await daemon.api.call('GET', '/readyz')).status === 200, 15_000);
  }

  file(homes: readonly string[]): { commit: string; wire: { vlan: number }; members: object[] } {
    return { commit: 'acks', wire: { vlan: 33 }, members: homes.map((host, i) => ({ name: `m${i + 1}`, host, port: 'tap', mac: macOf(i) })) };
  }

  /** m4, the second member of h1. */
  fourth(): object {
    return { name: 'm4', host: 'h1', port: 'tap2', mac: macOf(3) };
  }
  namespace(name: string): string {
    return ns(name);
  }
  pins(host: string): string {
    return pinsOf(host);
  }

  /** Frames from a member to another address; how many were answered. */
  async ping(from: string, address: string, seconds = 1): Promise<number> {
    const said = await run('nsenter', [`--net=/run/netns/${ns(from)}`, 'ping', '-c', '3', '-i', '0.2', '-W', String(seconds), address]).catch((error: unknown) => String(error));
    return Number(/(\d+) received/.exec(said)?.[1] ?? 0);
  }
  async cutOff(host: string, isCut: boolean): Promise<void> {
    await ipBatch(ns(host), [`link set mg ${isCut ? 'down' : 'up'}`]);
  }

  /** The outsider, whose addresses hosts ask to see whether they are cut off. */
  async outside(...lines: readonly string[]): Promise<void> {
    await ipBatch(ns('out'), lines);
  }
  /** The cable of a host's uplink. */
  async cable(host: string, isPlugged: boolean): Promise<void> {
    await ipBatch(ns('sw'), [`link set up${NAMES.findIndex((name) => name === host)} ${isPlugged ? 'up' : 'down'}`]);
  }

  async close(): Promise<void> {
    for (const daemon of this.daemons) await daemon.close();
    await this.etcd.close();
    for (const name of this.#namespaces) await run('ip', ['netns', 'del', name]).catch(() => '');
    rmSync(this.directory, { recursive: true, force: true });
    settled(this.#leaving);
  }
}
