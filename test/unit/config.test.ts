import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseGroup } from '../../proxy/api/contract.ts';
import { helpText, readConfig, readYaml } from '../../proxy/config.ts';
import type { Config } from '../../proxy/config.ts';
import { flagOf, SETTING_NAMES, SETTINGS, variableOf } from '../../proxy/settings.ts';
import { parse } from 'yaml';

const deploy = (name: string): string => readFileSync(join(import.meta.dirname, '../../deploy', name), 'utf8');
const NO_FILE = { SLUICE_CONFIG: '/dev/null' };
function config(argv: readonly string[], env: Record<string, string> = {}): Config {
  const request = readConfig(argv, { ...NO_FILE, ...env });
  if (request.kind !== 'run') throw new Error('expected a configuration');
  return request.config;
}
const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
  return 'accepted';
};

test('without anything, the documented defaults', () => {
  expect(config([])).toMatchObject({
    control: { socket: '/run/sluice/control.sock', group: 'sluice', tcp: undefined }, state: '/var/lib/sluice', log: { level: 'info', format: 'json' },
    pins: undefined, attach: 'auto', mark: { mask: 0x70000000 }, worker: { cpu: undefined, rings: 4 },
  });
});

test('settings that everyone may write, or exchange, are refused; a link is looked behind', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sl-config-'));
  const open = join(dir, 'open');
  const place = (path: string, mode: number): string => {
    writeFileSync(path, 'log: { level: warn }\n');
    chmodSync(path, mode);
    return path;
  };
  try {
    mkdirSync(open);
    chmodSync(open, 0o777);
    symlinkSync(place(join(open, 'f.yaml'), 0o644), join(dir, 'link.yaml'));
    const said = (file: string): string => messageOf(() => config(['--config', file]));
    expect(config(['--config', place(join(dir, 'good.yaml'), 0o664)])).toMatchObject({ log: { level: 'warn' } });
    expect(said(place(join(dir, 'bad.yaml'), 0o646))).toMatch(/^ConfigError: .*bad\.yaml: everyone may write these settings.*; chmod o-w .*bad\.yaml$/);
    expect(said(join(open, 'f.yaml'))).toMatch(/^ConfigError: .* everyone may write .*open and so exchange these settings; chmod o-w .*open$/);
    expect(said(join(dir, 'link.yaml'))).toMatch(/open and so exchange these settings/);
    chmodSync(open, 0o1777);
    expect(said(join(dir, 'link.yaml'))).toBe('accepted');
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('a key, a flag and a variable each; flags win over variables, variables over the file', () => {
  expect(flagOf('socket')).toBe('control-socket');
  expect(variableOf('socket')).toBe('SLUICE_CONTROL_SOCKET');
  expect(flagOf('clientCa')).toBe('control-tcp-tls-client-ca');
  expect(variableOf('clientCa')).toBe('SLUICE_CONTROL_TCP_TLS_CLIENT_CA');
  expect(readYaml('f', 'control:\n  socket: /from/file\nlog: { level: warn }')).toEqual({ socket: '/from/file', level: 'warn' });
  expect(config(['--log-level', 'error'], { SLUICE_LOG_LEVEL: 'debug', SLUICE_STATE: '/s' })).toMatchObject({ log: { level: 'error' }, state: '/s' });
  expect(config([], { SLUICE_LOG_LEVEL: 'debug', SLUICE_MARK_MASK: '0x1c', SLUICE_URL: 'http://x' })).toMatchObject({ log: { level: 'debug' }, mark: { mask: 0x1c } });
});

test('the help names every setting', () => {
  for (const name of SETTING_NAMES) expect(helpText()).toContain(`--${flagOf(name)} `);
  expect(readConfig(['--help'], {})).toEqual({ kind: 'help' });
  expect(readConfig(['--version'], {})).toEqual({ kind: 'version' });
});

test('the example files are good, and the daemon\'s shows the defaults', () => {
  const { mask, socket, group, state, level, format, attach } = readYaml('x', deploy('sluice.example.yaml'));
  const { control, mark, log, ...rest } = config([]);
  expect({ mask, socket, group, state, level, format, attach }).toEqual({ mask: mark.mask, socket: control.socket, group: control.group, state: rest.state, ...log, attach: rest.attach });
  expect(parseGroup(parse(deploy('group.example.yaml'))).ok).toBe(true);
});

test('JSON is YAML: a file written by a program', () => {
  expect(readYaml('x', JSON.stringify({ host: 'bed', control: { socket: '/a' }, mark: { mask: 0x70000000 }, worker: { cpu: 1 } }))).toEqual({ host: 'bed', socket: '/a', mask: 0x70000000, cpu: 1 });
});

describe('a wrong file: its line, the key, and what to write instead', () => {
  const table: readonly [string, string, RegExp][] = [
    ['unknown key', 'host: a\ncontrl: {}', /^ConfigError: f:2: contrl is not a setting; settings are host, control, state/],
    ['unknown key below', 'control:\n  # a comment\n  sokcet: /x', /^ConfigError: f:3: control\.sokcet is not a setting; below control there are socket, group, tcp$/],
    ['not a map', 'log: json', /^ConfigError: f:1: log must be a map of level, format/],
    ['a list', '- a', /^ConfigError: f:1: the file must be a map/],
    ['not YAML', 'host: a\nlog: [', /^ConfigError: f:\d: not YAML/],
    ['the key twice', 'host: a\nhost: b', /^ConfigError: f:2: not YAML: Map keys must be unique/],
    ['relative path', 'state: var', /^ConfigError: f:1: state: "var" is not right; expected the absolute path/],
    ['long socket', `control: { socket: /${'a'.repeat(107)} }`, /at most 107 bytes/],
    ['a value that is a map', 'host: { a: 1 }', /f:1: host: "a list or map" is not right/],
    ['plane', 'plane: dpdk', /f:1: plane: "dpdk" is not right; expected ebpf or pcap/],
    ['ports, a name too long', 'pcap: { ports: [averyverylongname] }', /f:1: pcap\.ports: "averyverylongname" is not right; expected 1 to 64 names of devices/],
    ['ports, one twice', 'pcap:\n  ports: [tap0, tap0]', /f:2: pcap\.ports: .* expected 1 to 64 names/],
    ['memory elsewhere', 'pcap: { memory: /tmp/x }', /below \/dev\/shm/],
    ['ledger', 'ledger: { etcd: { endpoints: [x] } }', /f:1: ledger.etcd.endpoints: "x" is not right; expected a list of 1 to 16 addresses/],
    ['ledger, misspelt', 'ledger: { etcd: { endpoint: [x] } }', /f:1: ledger.etcd.endpoint is not a setting; below ledger.etcd there are endpoints/],
    ['ledger, other', 'ledger: raft', /expected embedded/],
    ['isolation, a name', 'isolation: { addresses: [gateway] }', /f:1: isolation\.addresses: "gateway" is not right; expected a list of 1 to 8 IPv4 or IPv6 addresses/],
    ['isolation, nine addresses', `isolation: { addresses: [${Array.from({ length: 9 }, (_, i) => `10.0.0.${i + 1}`).join(', ')}] }`, /expected a list of 1 to 8/],
    ['isolation, policy', 'isolation:\n  policy: open', /f:2: isolation\.policy: "open" is not right; expected hold or close/],
    ['isolation, too often', 'isolation: { everyMs: 10 }', /f:1: isolation\.everyMs: "?10"? is not right/],
    ['isolation, misspelt', 'isolation: { address: [10.0.0.1] }', /f:1: isolation\.address is not a setting; below isolation there are addresses/],
    ['level', 'log:\n  level: loud', /f:2: log\.level: "loud" is not right; expected trace or debug/],
    ['mask, two bits', 'mark: { mask: 0x3 }', /three adjacent bits, as 0x70000000/],
    ['mask, apart', 'mark: { mask: 0xb }', /three adjacent bits/],
    ['mask, too wide', 'mark: { mask: 0x1c0000000 }', /three adjacent bits/],
    ['cpu', 'worker: { cpu: -1 }', /the number of a CPU/],
    ['rings', 'worker: { rings: 257 }', /how many groups may have a packet ring of their own, 0 to 256/],
    ['pins elsewhere', 'pins: /tmp/x', /below \/sys\/fs\/bpf/],
    ['pins, up', 'pins: /sys/fs/bpf/..', /below \/sys\/fs\/bpf/],
    ['port', 'control: { tcp: { listen: "127.0.0.1:0" } }', /as 127\.0\.0\.1:7443/],
  ];
  test.each(table)('%s', (_name, text, expected) => {
    const message = messageOf(() => readYaml('f', text));
    expect(message).toMatch(expected);
    expect(message).not.toContain('\n');
  });
});

test('the portable plane: its ports as a list or as text, and never without', () => {
  expect(readYaml('f', 'plane: pcap\npcap: { ports: [tap0, eth1] }')).toEqual({ plane: 'pcap', ports: ['tap0', 'eth1'] });
  expect(config(['--plane', 'pcap', '--pcap-ports', 'tap0,eth1']).pcap).toEqual({ ports: ['tap0', 'eth1'], memory: undefined });
  expect(config([]).pcap).toBeUndefined();
  expect(messageOf(() => config(['--plane', 'pcap']))).toMatch(/plane: pcap needs pcap\.ports/);
  expect(messageOf(() => config(['--pcap-ports', 'tap0']))).toMatch(/pcap is set but plane is not pcap/);
});

test('isolation: what is left out, what belongs together', () => {
  const [across, two] = [['--ledger-etcd-endpoints', 'http://10.0.0.1:2379'], ['--isolation-addresses', '10.0.0.1,fd00::1']];
  const more = (policy: string, everyMs: number, afterMs: number): string[] => ['--isolation-policy', policy, '--isolation-every-ms', String(everyMs), '--isolation-after-ms', String(afterMs)];
  expect(config([...across, ...two]).isolation).toEqual({ addresses: ['10.0.0.1', 'fd00::1'], policy: 'hold', everyMs: 250, afterMs: 3000 });
  expect(config([...across, ...two, ...more('close', 100, 300)]).isolation).toMatchObject({ policy: 'close', everyMs: 100, afterMs: 300 });
  expect(messageOf(() => config([...across, ...two, ...more('hold', 100, 299)]))).toMatch(/afterMs 299 has no room for 3 rounds of isolation\.everyMs 100; make it at least 300$/);
  expect(messageOf(() => config([...across, '--isolation-policy', 'close']))).toMatch(/isolation\.policy is set but isolation\.addresses is not/);
  expect(messageOf(() => config(two))).toMatch(/isolation is for groups across hosts, which need ledger\.etcd\.endpoints/);
});

describe('wrong flags and variables', () => {
  const table: readonly [string, string[], Record<string, string>, RegExp][] = [
    ['unknown flag', ['--sokcet', 'x'], {}, /Unknown option '--sokcet'; sluiced --help/],
    ['no value', ['--state'], {}, /--state/],
    ['positional', ['start'], {}, /'start'/],
    ['bad value', ['--state', 'x'], {}, /^ConfigError: --state: "x"/],
    ['variable', [], { SLUICE_STATE: 'x' }, /^ConfigError: environment: SLUICE_STATE: "x"/],
    ['unknown variable', [], { SLUICE_CONTROL_SOKCET: '/x' }, /SLUICE_CONTROL_SOKCET is unknown; known are SLUICE_HOST/],
    ['no such file', ['--config', '/nonexistent/f.yaml'], {}, /^ConfigError: \/nonexistent\/f\.yaml: can't be read \(ENOENT\)/],
    ['open TCP', ['--control-tcp-listen', '127.0.0.1:1'], {}, /open to everyone; add control\.tcp\.tls/],
    ['TLS without client CA', ['--control-tcp-listen', '127.0.0.1:1', '--control-tcp-tls-cert', '/c', '--control-tcp-tls-key', '/k'], {}, /open to everyone/],
    ['half of TLS', ['--control-tcp-listen', '127.0.0.1:1', '--control-tcp-tls-cert', '/c', '--control-tcp-tokens', '/t'], {}, /needs both cert and key/],
    ['CA alone', ['--control-tcp-listen', '127.0.0.1:1', '--control-tcp-tls-client-ca', '/c'], {}, /clientCa needs cert and key/],
    ['tokens in the clear', ['--control-tcp-listen', '192.0.2.1:1', '--control-tcp-tokens', '/t'], {}, /in the clear; add control\.tcp\.tls/],
    ['tokens without listen', ['--control-tcp-tokens', '/t'], {}, /control\.tcp\.tokens is set but control\.tcp\.listen is not/],
  ];
  test.each(table)('%s', (_name, argv, env, expected) => {
    expect(messageOf(() => config(argv, env))).toMatch(expected);
  });
});

test('TCP with a client CA, or with tokens', () => {
  expect(config(['--control-tcp-listen', '[::1]:7443', '--control-tcp-tokens', '/t']).control.tcp).toEqual({ listen: { host: '::1', port: 7443 }, tls: undefined, tokens: '/t', ui: false });
  expect(config(['--control-tcp-listen', 'h:7443', '--control-tcp-tls-cert', '/c', '--control-tcp-tls-key', '/k', '--control-tcp-tls-client-ca', '/a']).control.tcp?.tls).toEqual({ cert: '/c', key: '/k', clientCa: '/a' });
});

test('every setting says what it expects', () => {
  for (const name of SETTING_NAMES) {
    const result = SETTINGS[name].read('\u0000 no such value');
    expect(!result.ok && result.message, name).toContain(SETTINGS[name].expected);
  }
});
