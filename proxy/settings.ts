/**
 * Every setting of sluiced, as a table: its key in the file, how its text is read, what is expected.
 * Flag and environment variable follow from the key: control.socket is --control-socket and
 * SLUICE_CONTROL_SOCKET. config.ts reads the three sources and puts the result together.
 */
import { isIP } from 'node:net';
import { EVENT_TYPES } from './api/contract.ts';
import type { EventType } from './api/contract.ts';

export type Read<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly message: string };

export interface Setting<T> {
  readonly key: string;
  readonly expected: string;
  /** From the text as the user wrote it. */
  readonly read: (text: string) => Read<T>;
}

const value = <T>(of: T): Read<T> => ({ ok: true, value: of });

function setting<T>(key: string, expected: string, read: (text: string) => T | undefined): Setting<T> {
  return {
    key,
    expected,
    read: (text) => {
      const result = read(text);
      return result === undefined ? { ok: false, message: `${JSON.stringify(text)} is not right; expected ${expected}` } : value(result);
    },
  };
}

const path = (key: string, what: string): Setting<string> =>
  setting(key, `the absolute path of ${what}`, (text) => (text.startsWith('/') && text.length > 1 && !text.includes('\0') ? text : undefined));

function choice<const C extends readonly string[]>(key: string, choices: C): Setting<C[number]> {
  return setting(key, choices.join(' or '), (text): C[number] | undefined => choices.find((one) => one === text));
}

export interface Listen {
  readonly host: string;
  readonly port: number;
}
function listen(text: string): Listen | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  return host === undefined || port < 1 || port > 65535 ? undefined : { host, port };
}

/** The mark's field: exactly three adjacent bits (abi.h). */
function mask(text: string): number | undefined {
  const bits = /^(0x[0-9a-f]{1,8}|[0-9]{1,10})$/i.test(text) ? Number(text) : 0;
  const lowest = bits & -bits;
  return bits <= 0xffffffff && bits !== 0 && bits === (lowest >>> 0) * 7 ? bits : undefined;
}

/** Of the portable plane. A ring in the kernel is 32 MiB a port. */
const PORTS_MAX = 64;
/** A list is written with commas or, in the file, as a list. */
function ports(text: string): readonly string[] | undefined {
  const names = text.split(/[\s,]+/).filter((name) => name !== '');
  const fit = names.length > 0 && names.length <= PORTS_MAX && names.every((name) => /^[A-Za-z0-9._-]{1,15}$/.test(name));
  return fit && new Set(names).size === names.length ? names : undefined;
}

const ENDPOINTS_MAX = 16;
function endpoints(text: string): readonly string[] | undefined {
  const urls = text.split(/[\s,]+/).filter((url) => url !== '');
  const fit = urls.length > 0 && urls.length <= ENDPOINTS_MAX && urls.every((url) => /^https?:\/\/[^/\s]+:[0-9]{1,5}$/.test(url));
  return fit ? urls : undefined;
}

const URLS_MAX = 4;
/** Where events are posted. What happens on this host is nobody else's business: https, but to itself. */
function urls(text: string): readonly string[] | undefined {
  const found = text.split(/[\s,]+/).filter((url) => url !== '');
  const fits = (text: string): boolean => {
    if (!URL.canParse(text)) return false;
    const { protocol, hostname, username, password, hash } = new URL(text);
    const isOwn = /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/.test(hostname);
    return (protocol === 'https:' || (protocol === 'http:' && isOwn)) && `${username}${password}${hash}` === '';
  };
  return found.length > 0 && found.length <= URLS_MAX && found.every(fits) ? found : undefined;
}

/** What happens every epoch is not for hooks: a program a hundred times a second. `gap` is of one follower. */
const EVERY_EPOCH: readonly EventType[] = ['cut', 'acked', 'committed', 'released', 'output-pending', 'gap'];
export const HOOK_EVENTS: readonly EventType[] = EVENT_TYPES.filter((type) => !EVERY_EPOCH.includes(type));
function hookEvents(text: string): readonly EventType[] | undefined {
  const names = text.split(/[\s,]+/).filter((name) => name !== '');
  const found = HOOK_EVENTS.filter((type) => names.includes(type));
  return names.length > 0 && found.length === new Set(names).size ? found : undefined;
}

/** In milliseconds. */
function timeout(text: string): number | undefined {
  const [, digits = '', unit] = /^([0-9]{1,5})(ms|s)$/.exec(text) ?? [];
  const ms = unit === undefined ? NaN : Number(digits) * (unit === 's' ? 1000 : 1);
  return ms >= 100 && ms <= 60_000 ? ms : undefined;
}
/** A round asks each of them; more than a few prove nothing more. */
const ADDRESSES_MAX = 8;
function addresses(text: string): readonly string[] | undefined {
  const given = text.split(/[\s,]+/).filter((one) => one !== '');
  const fit = given.length > 0 && given.length <= ADDRESSES_MAX && given.every((one) => isIP(one) !== 0 && !one.includes('%'));
  return fit && new Set(given).size === given.length ? given : undefined;
}
const ms = (key: string, least: number, most: number): Setting<number> =>
  setting(key, `milliseconds, ${least} to ${most}`, (text) => (/^[0-9]{1,6}$/.test(text) && Number(text) >= least && Number(text) <= most ? Number(text) : undefined));

const CPUS_MAX = 4096;
/** As many as there may be groups. */
const RINGS_MAX = 256;
const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;

export const SETTINGS = {
  host: setting('host', 'a name of 1 to 64 letters, digits, ".", "_" or "-"', (text) => (/^[A-Za-z0-9._-]{1,64}$/.test(text) ? text : undefined)),
  socket: setting('control.socket', 'an absolute path of at most 107 bytes', (text) => (text.startsWith('/') && Buffer.byteLength(text) <= 107 ? text : undefined)),
  group: setting('control.group', 'the name of a group of this machine', (text) => (/^[a-zA-Z_][a-zA-Z0-9_.-]{0,31}$/.test(text) ? text : undefined)),
  listen: setting('control.tcp.listen', 'an address and port, as 127.0.0.1:7443 or [::1]:7443', listen),
  cert: path('control.tcp.tls.cert', 'the server\'s certificate (PEM)'),
  key: path('control.tcp.tls.key', 'the server\'s private key (PEM)'),
  clientCa: path('control.tcp.tls.clientCa', 'the CA that signed the clients\' certificates (PEM)'),
  tokens: path('control.tcp.tokens', 'a file of lines NAME TOKEN RIGHT:GROUP'),
  ui: choice('control.tcp.ui', ['off', 'on']),
  state: path('state', 'the journal\'s directory'),
  bridges: path('bridges', 'the directory in which `sluice attach` notes bridges'),
  plane: choice('plane', ['ebpf', 'pcap']),
  ports: setting('pcap.ports', `1 to ${PORTS_MAX} names of devices, as tap0 or tap0, tap1, eth1`, ports),
  memory: setting('pcap.memory', 'an absolute path below /dev/shm', (text) => (/^\/dev\/shm\/[A-Za-z0-9._-]+$/.test(text) && !/\/\.+$/.test(text) ? text : undefined)),
  uplink: setting('uplink', 'the name of the bridge port by which other hosts are reached', (text) => (/^[A-Za-z0-9._-]{1,15}$/.test(text) ? text : undefined)),
  vxlanPort: setting('vxlan.port', 'the UDP port of frames between hosts by VXLAN, 1 to 65535, the same on all hosts; 4789 when left out', (text) => (/^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65535 ? Number(text) : undefined)),
  ledger: choice('ledger', ['embedded']),
  endpoints: setting('ledger.etcd.endpoints', 'a list of 1 to 16 addresses, as http://10.0.0.1:2379', endpoints),
  prefix: setting('ledger.etcd.prefix', 'where its keys are, beginning and ending with "/"; /sluice/ when left out', (text) => (/^\/([A-Za-z0-9._-]+\/)*$/.test(text) ? text : undefined)),
  ledgerCa: path('ledger.etcd.tls.ca', 'the CA that signed etcd\'s certificate (PEM)'),
  ledgerCert: path('ledger.etcd.tls.cert', 'the certificate that etcd knows this host by (PEM)'),
  ledgerKey: path('ledger.etcd.tls.key', 'its private key (PEM)'),
  isolation: setting('isolation.addresses', 'a list of 1 to 8 IPv4 or IPv6 addresses that answer pings while this host is not cut off', addresses),
  isolationPolicy: choice('isolation.policy', ['hold', 'close']),
  isolationEvery: ms('isolation.everyMs', 50, 10_000),
  isolationAfter: ms('isolation.afterMs', 200, 120_000),
  auditFile: path('audit.file', 'the audit log'),
  hookCommand: path('hooks.command', 'a program that gets each event on its standard input'),
  hookEvents: setting('hooks.events', `a list of ${HOOK_EVENTS.join(', ')}; all of them when left out`, hookEvents),
  hookTimeout: setting('hooks.timeout', '100ms to 60s for a run or a post; 10s when left out', timeout),
  hookUrls: setting('hooks.webhook.urls', `a list of 1 to ${URLS_MAX} addresses, as https://alerts.example:8443/sluice; http:// for 127.0.0.1 only, no user or #`, urls),
  hookSecret: path('hooks.webhook.secret', 'a file with the secret that signs what is posted'),
  hookCa: path('hooks.webhook.ca', 'the CA of the addresses\' certificates (PEM); the well-known ones when left out'),
  level: choice('log.level', LEVELS),
  format: choice('log.format', ['json', 'pretty']),
  pins: setting('pins', 'an absolute path below /sys/fs/bpf', (text) => (/^\/sys\/fs\/bpf\/[A-Za-z0-9._-]+$/.test(text) && !/\/\.+$/.test(text) ? text : undefined)),
  attach: choice('attach', ['auto', 'tcx', 'clsact']),
  lanes: choice('lanes', ['auto', 'off', 'on']),
  mask: setting('mark.mask', 'three adjacent bits, as 0x70000000', mask),
  cpu: setting('worker.cpu', 'the number of a CPU', (text) => (/^[0-9]{1,4}$/.test(text) && Number(text) < CPUS_MAX ? Number(text) : undefined)),
  rings: setting('worker.rings', `how many groups may have a packet ring of their own, 0 to ${RINGS_MAX}; 4 when left out`, (text) => (/^[0-9]{1,3}$/.test(text) && Number(text) <= RINGS_MAX ? Number(text) : undefined)),
} as const;

export type SettingName = keyof typeof SETTINGS;
export const SETTING_NAMES = Object.keys(SETTINGS).filter((name): name is SettingName => name in SETTINGS);
/** What was given, by any source, already read. */
export type Given = { -readonly [N in SettingName]?: (typeof SETTINGS)[N] extends Setting<infer T> ? T : never };

const dashed = (key: string): string => key.replaceAll('.', '-').replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
export const flagOf = (name: SettingName): string => dashed(SETTINGS[name].key);
export const variableOf = (name: SettingName): string => `SLUICE_${dashed(SETTINGS[name].key).replaceAll('-', '_').toUpperCase()}`;
