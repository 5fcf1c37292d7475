/**
 * Configuration of sluiced: flags over environment over file over defaults.
 *
 *     flags ─┐
 *     SLUICE_* ─┼─► one setting each (settings.ts) ─► rules between them ─► Config
 *     YAML ──┘
 *
 * Strict: an unknown key, flag or variable of ours is an error, since a misspelt one would silently
 * be the default. Each error is one line: where, what is wrong, what to write instead.
 */
import { closeSync, fstatSync, openSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { isMap, isScalar, isSeq, LineCounter, parseDocument } from './doors/yaml.ts';
import type { Node, Pair } from 'yaml';
import { flagOf, HOOK_EVENTS, SETTING_NAMES, SETTINGS, variableOf } from './settings.ts';
import type { Given, Listen, Read, SettingName } from './settings.ts';

const HOOK_MS = 10_000;
export const CONFIG_FILE_DEFAULT = '/etc/sluice/sluice.yaml';

export interface Tls {
  readonly cert: string;
  readonly key: string;
  readonly clientCa: string | undefined;
}
export interface Config {
  readonly host: string;
  readonly control: {
    readonly socket: string;
    readonly group: string;
    readonly tcp: { readonly listen: Listen; readonly tls: Tls | undefined; readonly tokens: string | undefined; readonly ui?: boolean } | undefined;
  };
  readonly state: string;
  /** Directory of the attached bridges. */
  readonly bridges: string;
  /** File of the audit log; undefined = lines of the log. */
  readonly audit: string | undefined;
  readonly log: { readonly level: string; readonly format: 'json' | 'pretty' };
  /** Directory of the pins; undefined = named after the state directory. */
  readonly pins: string | undefined;
  readonly attach: 'auto' | 'tcx' | 'clsact';
  /** Where held frames wait: in the ring, or, where the kernel can, in queues of its own. */
  readonly lanes: 'auto' | 'off' | 'on';
  readonly mark: { readonly mask: number };
  /** undefined = ebpf. */
  readonly pcap: PcapConfig | undefined;
  /** The bridge port by which other hosts are reached; needed by groups across hosts. */
  readonly uplink?: string;
  /** UDP port of frames between hosts by VXLAN; undefined = 4789. */
  readonly vxlanPort?: number;
  /** undefined = embedded. */
  readonly ledger?: LedgerConfig;
  /** undefined = whether this host is cut off is not looked at. */
  readonly isolation?: IsolationConfig;
  /** `cpu` undefined = chosen by the daemon. `rings`: so many groups have packet rings of their own. */
  readonly worker: { readonly cpu: number | undefined; readonly rings: number };
  /** undefined = none. */
  readonly hooks?: HooksConfig;
}

/** Who is told of events: a program, addresses, or both. */
export interface HooksConfig {
  readonly command: string | undefined;
  readonly events: readonly string[];
  readonly timeoutMs: number;
  readonly urls: readonly string[];
  /** Files. */
  readonly secret: string | undefined;
  readonly ca: string | undefined;
}

/** By what it is seen that this host is cut off, and what is done then. */
export interface IsolationConfig {
  readonly addresses: readonly string[];
  readonly policy: 'hold' | 'close';
  readonly everyMs: number;
  readonly afterMs: number;
}

/** etcd: where the record of groups across hosts is kept. */
export interface LedgerConfig {
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly tls: { readonly ca: string; readonly cert: string | undefined; readonly key: string | undefined } | undefined;
}

/** The portable plane. */
export interface PcapConfig {
  /** The ports that are switched, members' and others. */
  readonly ports: readonly string[];
  /** File of the memory that is shared with the child; undefined = named after the state directory. */
  readonly memory: string | undefined;
}

/** An error its reader can mend: one line, no stack. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export type Request = { readonly kind: 'run'; readonly config: Config } | { readonly kind: 'help' } | { readonly kind: 'version' };

export function readConfig(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Request {
  const flags = readFlags(argv);
  if (flags.kind !== 'run') return flags;
  const file = flags.config ?? env['SLUICE_CONFIG'];
  const given = { ...readFile(file ?? CONFIG_FILE_DEFAULT, file !== undefined), ...readEnvironment(env), ...flags.given };
  return { kind: 'run', config: assemble(given) };
}

/** Sets one setting from text; the type of `given` follows from the table. */
function take<N extends SettingName>(given: Given, name: N, text: string, where: string): void {
  const result: Read<unknown> = SETTINGS[name].read(text);
  if (!result.ok) throw new ConfigError(`${where}: ${result.message}`);
  Object.assign(given, { [name]: result.value });
}

function readFlags(argv: readonly string[]): { kind: 'help' } | { kind: 'version' } | { kind: 'run'; config: string | undefined; given: Given } {
  const named = Object.fromEntries(SETTING_NAMES.map((name) => [flagOf(name), { type: 'string' as const }]));
  let values: Record<string, string | boolean | undefined>;
  try {
    const options = { ...named, config: { type: 'string' as const }, help: { type: 'boolean' as const, short: 'h' }, version: { type: 'boolean' as const } };
    values = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    const [first] = (error instanceof Error ? error.message : String(error)).split('. ');
    throw new ConfigError(`${first}; sluiced --help lists the flags`);
  }
  if (values['help'] === true) return { kind: 'help' };
  if (values['version'] === true) return { kind: 'version' };
  const given: Given = {};
  for (const name of SETTING_NAMES) {
    const text = values[flagOf(name)];
    if (typeof text === 'string') take(given, name, text, `--${flagOf(name)}`);
  }
  return { kind: 'run', config: typeof values['config'] === 'string' ? values['config'] : undefined, given };
}

/** A misspelt variable of these families is an error; other SLUICE_ variables belong to other tools. */
const FAMILY = /^SLUICE_(AUDIT|CONTROL|HOOKS|ISOLATION|LEDGER|LOG|MARK|PCAP|VXLAN|WORKER)_/;

function readEnvironment(env: Readonly<Record<string, string | undefined>>): Given {
  const given: Given = {};
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('SLUICE_') || text === undefined) continue;
    const name = SETTING_NAMES.find((one) => variableOf(one) === variable);
    if (name === undefined && !FAMILY.test(variable)) continue;
    if (name === undefined) throw new ConfigError(`environment: ${variable} is unknown; known are ${SETTING_NAMES.map(variableOf).join(', ')}`);
    take(given, name, text, `environment: ${variable}`);
  }
  return given;
}

/** Whose it is, is its user's affair: who starts sluiced with it believes its owner. What everyone may write is nobody's word. */
function readBelieved(file: string): string {
  const fd = openSync(file, 'r');
  try {
    const found = fstatSync(fd);
    if (found.isFile()) mayNotBeExchanged(file, found.mode);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
function mayNotBeExchanged(file: string, mode: number): void {
  const [everyone, sticky] = [0o002, 0o1000];
  if ((mode & everyone) !== 0) throw new ConfigError(`${file}: everyone may write these settings, so they can't be believed; chmod o-w ${file}`);
  const around = dirname(realpathSync(file));
  const place = statSync(around).mode;
  if ((place & everyone) !== 0 && (place & sticky) === 0) throw new ConfigError(`${file}: everyone may write ${around} and so exchange these settings; chmod o-w ${around}`);
}

function readFile(file: string, named: boolean): Given {
  let text: string;
  try {
    text = readBelieved(file);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' && !named) return {};
    throw new ConfigError(`${file}: can't be read (${code}); name the file with --config, or leave it out for the defaults`);
  }
  return readYaml(file, text);
}

/** Exported for the table of errors: text in, settings or one line out. */
export function readYaml(file: string, text: string): Given {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number | undefined): string => `${file}:${lines.linePos(offset ?? 0).line}`;
  const [fault] = document.errors;
  if (fault !== undefined) throw new ConfigError(`${at(fault.pos[0])}: not YAML: ${fault.message.split('\n')[0]}`);
  const given: Given = {};
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) return given;
  readMap(given, document.contents, '', at);
  return given;
}

function readMap(given: Given, node: Node, prefix: string, at: (offset: number | undefined) => string): void {
  const known = [...new Set(SETTING_NAMES.flatMap((name) => childOf(prefix, SETTINGS[name].key)))];
  if (!isMap(node)) throw new ConfigError(`${at(node.range?.[0])}: ${prefix || 'the file'} must be a map of ${known.join(', ')}`);
  for (const pair of node.items) readPair(given, pair as Pair<Node, Node | null>, prefix, known, at);
}

/** First step of `key` below `prefix`: socket of control.socket below control. */
function childOf(prefix: string, key: string): string[] {
  const below = prefix === '' ? key : key.startsWith(`${prefix}.`) ? key.slice(prefix.length + 1) : undefined;
  return below === undefined ? [] : [below.split('.')[0] ?? below];
}

const LISTS: ReadonlySet<SettingName> = new Set(['ports', 'endpoints', 'isolation', 'hookEvents', 'hookUrls']);

function readPair(given: Given, pair: Pair<Node, Node | null>, prefix: string, known: readonly string[], at: (offset: number | undefined) => string): void {
  const step = isScalar(pair.key) ? String(pair.key.value) : '?';
  const key = prefix === '' ? step : `${prefix}.${step}`;
  const where = at(pair.key.range?.[0]);
  if (!known.includes(step)) throw new ConfigError(`${where}: ${key} is not a setting; ${prefix === '' ? 'settings are' : `below ${prefix} there are`} ${known.join(', ')}`);
  const node = pair.value;
  if (node === null || (isScalar(node) && node.value === null)) return; // `key:` alone = the default
  const name = SETTING_NAMES.find((one) => SETTINGS[one].key === key);
  if (name === undefined || (name === 'ledger' && isMap(node))) return readMap(given, node, key, at);
  if (isScalar(node)) return take(given, name, textOf(node), `${where}: ${key}`);
  if (isSeq(node) && LISTS.has(name) && node.items.every((item) => isScalar(item))) return take(given, name, node.items.map((item) => String(isScalar(item) ? item.value : '')).join(' '), `${where}: ${key}`);
  take(given, name, 'a list or map', `${where}: ${key}`);
}

/** 0x70000000 as written, not as the number YAML made of it. */
const textOf = (node: { value: unknown; source?: string }): string =>
  typeof node.value === 'number' && node.source !== undefined ? node.source : String(node.value);

function assemble(given: Given): Config {
  return {
    host: given.host ?? hostname(),
    control: { socket: given.socket ?? '/run/sluice/control.sock', group: given.group ?? 'sluice', tcp: assembleTcp(given) },
    state: given.state ?? '/var/lib/sluice',
    bridges: given.bridges ?? '/etc/sluice/bridges.d',
    audit: given.auditFile,
    log: { level: given.level ?? 'info', format: given.format ?? 'json' },
    pins: given.pins,
    attach: given.attach ?? 'auto',
    lanes: given.lanes ?? 'auto',
    mark: { mask: given.mask ?? 0x70000000 },
    pcap: assemblePcap(given),
    worker: { cpu: given.cpu, rings: given.rings ?? 4 },
    ...(given.uplink === undefined ? {} : { uplink: given.uplink }),
    ...(given.vxlanPort === undefined ? {} : { vxlanPort: given.vxlanPort }),
    ...assembleLedger(given),
    ...assembleHooks(given),
    ...assembleIsolation(given),
  };
}

function assemblePcap({ plane, ports, memory }: Given): PcapConfig | undefined {
  if (plane === 'pcap') {
    if (ports === undefined) throw new ConfigError('plane: pcap needs pcap.ports: the devices that are switched, members\' and uplinks; add it');
    return { ports, memory };
  }
  if (ports !== undefined || memory !== undefined) throw new ConfigError('pcap is set but plane is not pcap; add plane: pcap or take pcap out');
  return undefined;
}

function assembleLedger({ endpoints, prefix, ledgerCa, ledgerCert, ledgerKey }: Given): { ledger?: LedgerConfig } {
  const lonely = Object.entries({ 'ledger.etcd.prefix': prefix, 'ledger.etcd.tls.ca': ledgerCa, 'ledger.etcd.tls.cert': ledgerCert, 'ledger.etcd.tls.key': ledgerKey }).find(([, is]) => is !== undefined);
  if (endpoints === undefined) {
    if (lonely !== undefined) throw new ConfigError(`${lonely[0]} is set but ledger.etcd.endpoints is not; add ledger.etcd.endpoints or take it out`);
    return {};
  }
  if ((ledgerCert === undefined) !== (ledgerKey === undefined)) throw new ConfigError('ledger.etcd.tls needs both cert and key; add the missing one');
  if (ledgerCa === undefined && ledgerCert !== undefined) throw new ConfigError('ledger.etcd.tls.cert needs ledger.etcd.tls.ca too; add it');
  if (ledgerCa !== undefined && endpoints.some((url) => !url.startsWith('https://'))) throw new ConfigError('ledger.etcd.tls is set but an endpoint is http://; write https://');
  return { ledger: { endpoints, prefix: prefix ?? '/sluice/', tls: ledgerCa === undefined ? undefined : { ca: ledgerCa, cert: ledgerCert, key: ledgerKey } } };
}

function assembleHooks({ hookCommand: command, hookEvents: events, hookTimeout: timeoutMs, hookUrls: urls, hookSecret: secret, hookCa: ca }: Given): { hooks?: HooksConfig } {
  if (urls === undefined && (secret ?? ca) !== undefined) throw new ConfigError(`hooks.webhook.${secret === undefined ? 'ca' : 'secret'} is set but hooks.webhook.urls is not; add hooks.webhook.urls or take it out`);
  if (urls === undefined && command === undefined) {
    if ((events ?? timeoutMs) !== undefined) throw new ConfigError('hooks has neither command nor webhook.urls, so nobody is told; add one or take hooks out');
    return {};
  }
  return { hooks: { command, events: events ?? HOOK_EVENTS, timeoutMs: timeoutMs ?? HOOK_MS, urls: urls ?? [], secret, ca } };
}

const PROBE_MS = 250;
const ISOLATED_MS = 3000;
/** One lost probe, or two, must not isolate a host. */
const ROUNDS_MIN = 3;

function assembleIsolation({ isolation, isolationPolicy, isolationEvery, isolationAfter, endpoints }: Given): { isolation?: IsolationConfig } {
  if (isolation === undefined) {
    const lonely = Object.entries({ 'isolation.policy': isolationPolicy, 'isolation.everyMs': isolationEvery, 'isolation.afterMs': isolationAfter }).find(([, is]) => is !== undefined);
    if (lonely !== undefined) throw new ConfigError(`${lonely[0]} is set but isolation.addresses is not; add isolation.addresses or take it out`);
    return {};
  }
  if (endpoints === undefined) throw new ConfigError('isolation is for groups across hosts, which need ledger.etcd.endpoints; add them or take isolation out');
  const [everyMs, afterMs] = [isolationEvery ?? PROBE_MS, isolationAfter ?? ISOLATED_MS];
  if (afterMs < ROUNDS_MIN * everyMs) throw new ConfigError(`isolation.afterMs ${afterMs} has no room for ${ROUNDS_MIN} rounds of isolation.everyMs ${everyMs}; make it at least ${ROUNDS_MIN * everyMs}`);
  return { isolation: { addresses: isolation, policy: isolationPolicy ?? 'hold', everyMs, afterMs } };
}

/** TCP is for those who prove who they are: a client certificate or a token; anything else is refused. */
function assembleTcp(given: Given): Config['control']['tcp'] {
  const { listen, cert, key, clientCa, tokens, ui } = given;
  if (listen === undefined) {
    const lonely = (['cert', 'key', 'clientCa', 'tokens', 'ui'] as const).find((name) => given[name] !== undefined);
    if (lonely !== undefined) throw new ConfigError(`${SETTINGS[lonely].key} is set but control.tcp.listen is not; add control.tcp.listen or take it out`);
    return undefined;
  }
  if ((cert === undefined) !== (key === undefined)) throw new ConfigError('control.tcp.tls needs both cert and key; add the missing one');
  if (clientCa !== undefined && cert === undefined) throw new ConfigError('control.tcp.tls.clientCa needs cert and key too; add them');
  if (clientCa === undefined && tokens === undefined) {
    throw new ConfigError('control.tcp would be open to everyone; add control.tcp.tls with cert, key and clientCa, or control.tcp.tokens');
  }
  if (cert === undefined && !/^(127(\.\d{1,3}){3}|::1|localhost)$/.test(listen.host)) {
    throw new ConfigError(`control.tcp.listen ${listen.host} without TLS would send tokens in the clear; add control.tcp.tls with cert and key, or listen on 127.0.0.1`);
  }
  return { listen, tls: cert === undefined || key === undefined ? undefined : { cert, key, clientCa }, tokens, ui: ui === 'on' };
}

export function helpText(): string {
  const rows = SETTING_NAMES.map((name) => `  --${flagOf(name)} VALUE`.padEnd(38) + SETTINGS[name].expected);
  return [
    'sluiced: holds the output of protected VM groups until their checkpoint commits',
    '',
    'usage: sluiced [--config FILE] [flags]',
    '',
    `  --config FILE`.padEnd(38) + `the settings as YAML; default ${CONFIG_FILE_DEFAULT}`,
    ...rows,
    '  --version, --help',
    '',
    'Each flag has a key in the file (control.socket) and an environment variable (SLUICE_CONTROL_SOCKET).',
    '',
  ].join('\n');
}
