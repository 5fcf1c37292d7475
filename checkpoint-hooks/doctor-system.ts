/**
 * The real System of `sluice doctor`: files, `ip`, `ethtool`, the loader's cache, the daemon's
 * socket. It decides nothing and changes nothing; every failure becomes a reason in a Seen.
 */
import { execFile } from 'node:child_process';
import { access, readFile, readdir } from 'node:fs/promises';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { SluiceClient, Unreachable } from './client.ts';
import type { Target } from './client.ts';
import { absent, hidden, seen } from './doctor.ts';
import type { DaemonSeen, FenceSeen, Link, Seen, System } from './doctor.ts';

const run = promisify(execFile);
const COMMAND_TIMEOUT_MS = 5000;
const OUTPUT_BYTES_MAX = 32 * 1024 * 1024;
/** Where a user's PATH may not lead. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`;
const LIBRARY_DIRS = ['/lib', '/usr/lib', '/lib64', '/usr/lib64', '/usr/local/lib', `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`];

function reasonOf(error: unknown): Seen<never> {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return absent;
  if (code === 'EACCES' || code === 'EPERM') return hidden('not allowed');
  return hidden(code ?? message.split('\n')[0] ?? 'failed');
}

async function command(file: string, args: readonly string[], cwd?: string): Promise<Seen<string>> {
  try {
    const options = { timeout: COMMAND_TIMEOUT_MS, maxBuffer: OUTPUT_BYTES_MAX, ...(cwd === undefined ? {} : { cwd }), env: { ...process.env, PATH, LC_ALL: 'C' } };
    const { stdout } = await run(file, [...args], options);
    return seen(stdout);
  } catch (error) {
    const { stderr } = error as { readonly stderr?: string };
    return stderr === undefined || stderr === '' ? reasonOf(error) : hidden(faultIn(stderr));
  }
}

interface IpLink {
  readonly ifname?: string;
  readonly address?: string;
  readonly flags?: readonly string[];
  readonly master?: string;
  readonly mtu?: number;
  readonly qdisc?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_slave_kind?: string;
    readonly info_data?: { readonly vlan_filtering?: number; readonly port?: number; readonly external?: boolean; readonly gbp?: boolean };
  };
}

function linkOf(link: IpLink): Link {
  const { info_kind: kind, info_data: data } = link.linkinfo ?? {};
  return {
    name: link.ifname ?? '',
    mac: link.address ?? '',
    up: link.flags?.includes('UP') ?? false,
    kind: kind ?? '',
    bridge: link.linkinfo?.info_slave_kind === 'bridge' ? link.master : undefined,
    vlanFiltering: data?.vlan_filtering === 1,
    mtu: link.mtu ?? 0,
    qdisc: link.qdisc ?? '',
    ...(kind === 'vxlan' ? { vxlan: { port: data?.port ?? 0, external: data?.external === true, gbp: data?.gbp === true } } : {}),
  };
}

/** The line of an error that Node printed with its stack, else the first. */
function faultIn(stderr: string): string {
  const lines = stderr.trim().split('\n');
  return (lines.find((line) => /^\w*Error: /.test(line)) ?? lines[0] ?? 'failed').trim();
}

async function readText(path: string): Promise<Seen<string>> {
  try {
    return seen(await readFile(path, 'utf8'));
  } catch (error) {
    return reasonOf(error);
  }
}

function optionsOf(config: string): ReadonlyMap<string, string> {
  return new Map(config.split('\n').flatMap((line) => {
    const match = /^(CONFIG_\w+)=(.*)$/.exec(line);
    return match === null ? [] : [[match[1] ?? '', match[2] ?? ''] as const];
  }));
}

async function kernelConfig(): Promise<Seen<ReadonlyMap<string, string>>> {
  try {
    return seen(optionsOf(gunzipSync(await readFile('/proc/config.gz')).toString('latin1')));
  } catch {
    const boot = await readText(`/boot/config-${release()}`);
    return boot.kind === 'seen' ? seen(optionsOf(boot.value)) : boot;
  }
}

async function links(): Promise<Seen<readonly Link[]>> {
  const shown = await command('ip', ['-j', '-d', 'link', 'show']);
  if (shown.kind !== 'seen') return shown;
  return seen((JSON.parse(shown.value) as readonly IpLink[]).map(linkOf));
}

interface IpAddresses {
  readonly addr_info?: readonly { readonly local?: string }[];
}
async function addresses(): Promise<Seen<readonly string[]>> {
  const shown = await command('ip', ['-j', '-4', 'addr', 'show']);
  if (shown.kind !== 'seen') return shown;
  return seen((JSON.parse(shown.value) as readonly IpAddresses[]).flatMap(({ addr_info: infos = [] }) => infos.flatMap(({ local }) => local ?? [])));
}

/** IPv4's and ICMP's headers. */
const PING_HEADERS = 28;
async function ping(address: string, bytes: number): Promise<Seen<boolean>> {
  const tried = await command('ping', ['-n', '-q', '-c', '2', '-i', '0.3', '-W', '1', '-M', 'do', '-s', String(bytes - PING_HEADERS), address]);
  if (tried.kind === 'seen') return seen(true);
  if (tried.kind === 'absent') return hidden('no `ping`: apt-get install iputils-ping');
  return /not permitted|Permission|invalid|unknown/i.test(tried.reason) ? tried : seen(false);
}

async function offloads(port: string): Promise<Seen<ReadonlyMap<string, boolean>>> {
  const shown = await command('ethtool', ['-k', port]);
  if (shown.kind === 'absent') return hidden('no `ethtool`: apt-get install ethtool');
  if (shown.kind === 'hidden') return /no such device|no device matches/i.test(shown.reason) ? absent : shown;
  return seen(new Map([...shown.value.matchAll(/^\s*([\w-]+): (on|off)/gm)].map((match) => [match[1] ?? '', match[2] === 'on'])));
}

/** The loader's cache; where there is none, the usual directories. Names may go on (`.so.0.8`). */
async function library(name: string): Promise<Seen<string>> {
  const cache = await command('ldconfig', ['-p']);
  if (cache.kind === 'seen') {
    const line = cache.value.split('\n').find((entry) => entry.trim().startsWith(name));
    if (line !== undefined) return seen(line.split(' => ')[1] ?? line.trim());
  }
  for (const dir of LIBRARY_DIRS) {
    const found = await readdir(dir).catch((): string[] => []);
    const file = found.find((entry) => entry.startsWith(name));
    if (file !== undefined) return seen(`${dir}/${file}`);
  }
  return absent;
}

async function list(path: string): Promise<Seen<readonly string[]>> {
  try {
    await access(path);
    return seen(await readdir(path));
  } catch (error) {
    return reasonOf(error);
  }
}

/** In a process of its own: what a native package does wrong ends only that. */
async function rawSocket(): Promise<Seen<string>> {
  const code = "const raw = require('raw-socket'); const s = raw.createSocket({ protocol: raw.Protocol.ICMP }); s.on('error', () => {}); console.log('ICMP by raw-socket'); process.exit(0)";
  const tried = await command(process.execPath, ['-e', code], dirname(fileURLToPath(import.meta.url)));
  if (tried.kind !== 'hidden') return tried.kind === 'seen' ? seen(tried.value.trim()) : tried;
  return /Cannot find module/.test(tried.reason) ? absent : tried;
}

interface NftSet {
  readonly set?: { readonly name: string; readonly table: string; readonly elem?: readonly string[] };
}

async function fences(): Promise<Seen<readonly FenceSeen[]>> {
  const shown = await command('nft', ['-j', 'list', 'sets', 'netdev']);
  if (shown.kind !== 'seen') return shown;
  const { nftables } = JSON.parse(shown.value) as { readonly nftables: readonly NftSet[] };
  return seen(nftables.flatMap(({ set }) => (set?.name === 'ports' && set.table.startsWith('sluice_') ? [{ table: set.table, ports: set.elem ?? [] }] : [])));
}

async function daemon(target: Target): Promise<DaemonSeen> {
  const client = new SluiceClient(target);
  try {
    const readiness = await client.readyz();
    return readiness.ready ? { kind: 'ready' } : { kind: 'not_ready', missing: readiness.missing };
  } catch (error) {
    if (error instanceof Unreachable) return { kind: 'unreachable', message: error.message, fix: error.fix };
    return { kind: 'not_ready', missing: [(error as Error).message] };
  } finally {
    await client.close();
  }
}

export function realSystem(target: Target): System {
  return {
    nodeVersion: process.version,
    kernelRelease: release(),
    readText,
    list,
    kernelConfig,
    links,
    offloads,
    addresses,
    ping,
    library,
    rawSocket,
    fences,
    daemon: () => daemon(target),
  };
}
