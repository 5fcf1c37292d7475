/**
 * What `sluice attach` and `sluice detach` look at and write. The bridge itself is never touched, nor
 * the files of whoever made it: an attachment is a file of ours, named as the bridge.
 */
import { mkdirSync, readdirSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GroupView } from '../proxy/api/contract.ts';
import type { Link, Seen, System } from './doctor.ts';

export const BRIDGES_DEFAULT = '/etc/sluice/bridges.d';

export interface PortView {
  readonly port: string;
  readonly kind: string;
  readonly up: boolean;
  /** Of a group's file; absent where it is nobody's. */
  readonly group?: string;
  readonly member?: string;
  readonly isProtected?: boolean;
}

/** The bridge's ports, and whose they are. */
export function portsOf(bridge: string, links: readonly Link[], groups: readonly GroupView[]): readonly PortView[] {
  const owners = new Map(groups.flatMap((group) => group.spec.members.flatMap((member) =>
    (member.nics ?? [{ port: member.port ?? '' }]).map(({ port }) => [port, { group: group.group, member: member.name, isProtected: group.phase !== 'idle' }] as const))));
  return links.filter((link) => link.bridge === bridge).map(({ name, kind, up }) => ({ port: name, kind: kind || 'nic', up, ...owners.get(name) }));
}

/** Who made the bridge, as far as that can be seen. Only to be said. */
export async function managerOf(bridge: string, system: Pick<System, 'readText' | 'list'>): Promise<string> {
  const text = (seen: Seen<string>): string => (seen.kind === 'seen' ? seen.value : '');
  const index = text(await system.readText(`/sys/class/net/${bridge}/ifindex`)).trim();
  if (/^NETWORK_FILE=/m.test(text(await system.readText(`/run/systemd/netif/links/${index}`)))) return 'systemd-networkd';
  if (/^managed=(true|full)$/m.test(text(await system.readText(`/run/NetworkManager/devices/${index}`)))) return 'NetworkManager';
  const more = await system.list('/etc/network/interfaces.d');
  const files = ['/etc/network/interfaces', ...(more.kind === 'seen' ? more.value.map((name) => `/etc/network/interfaces.d/${name}`) : [])];
  for (const file of files) {
    const words = text(await system.readText(file)).split('\n').map((line) => line.trim().split(/\s+/));
    if (words.some(([first, name]) => first === 'iface' && name === bridge)) return `ifupdown (${file})`;
  }
  return 'nobody that is known here';
}

/** Returns whether it is new. */
export function note(directory: string, bridge: string): boolean {
  const file = join(directory, bridge);
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory() === false) return false;
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  writeFileSync(file, `# sluiced may protect VMs on bridge ${bridge}. Made by: sluice attach ${bridge}. Undone by: sluice detach ${bridge}.\n`, { flag: 'wx', mode: 0o644 });
  return true;
}

/** Returns whether it was there. The directory goes with its last file. */
export function strike(directory: string, bridge: string): boolean {
  const file = join(directory, bridge);
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return false;
  rmSync(file);
  if (readdirSync(directory).length === 0) rmdirSync(directory);
  return true;
}
