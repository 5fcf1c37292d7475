import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CHECKS } from '../../checkpoint-hooks/doctor-checks.ts';
import { CHECKS_PCAP } from '../../checkpoint-hooks/doctor-checks-pcap.ts';
import { ROAD_CHECK } from '../../checkpoint-hooks/doctor-checks-vxlan.ts';
import { wantedPorts, wantedRoad } from '../../checkpoint-hooks/commands/doctor.ts';
import { realSystem } from '../../checkpoint-hooks/doctor-system.ts';
import { absent, examine, hidden, look, seen, udpPortsOf } from '../../checkpoint-hooks/doctor.ts';
import type { DoctorOptions, Facts, Finding, Level, Link, System } from '../../checkpoint-hooks/doctor.ts';
import { serve, sluice } from './cli-world.ts';

const link = (name: string, over: Partial<Link> = {}): Link => ({ name, mac: `fe:00:00:00:00:${name.length}${name.length}`, up: true, kind: '', bridge: undefined, vlanFiltering: false, mtu: 1500, qdisc: 'noqueue', ...over });
const CONFIG = new Map(['CONFIG_BPF_SYSCALL', 'CONFIG_PACKET', 'CONFIG_VETH', 'CONFIG_BRIDGE', 'CONFIG_NET_CLS_ACT'].map((name) => [name, 'y']));
const options: DoctorOptions = { ports: [], wanted: undefined, bpffs: '/sys/fs/bpf' };
const status = (caps: string): ReturnType<typeof seen<string>> => seen(`Name:\tnode\nCapEff:\t${caps}\n`);

/** A machine on which nothing is wrong; a case changes one fact. */
const GOOD: Facts = {
  options,
  nodeVersion: 'v20.20.2',
  kernelRelease: '6.18.1',
  kernelConfig: seen(CONFIG),
  bpfJit: seen('1\n'),
  status: status('000001ffffffffff'),
  mounts: seen('bpf /sys/fs/bpf bpf rw 0 0\n'),
  libbpf: seen('/lib/libbpf.so.1'),
  libpcap: seen('/lib/libpcap.so.0.8'),
  bridgeNf: [{ name: 'bridge-nf-call-iptables', value: absent }],
  links: seen([link('br0', { kind: 'bridge' }), link('tap0', { bridge: 'br0' }), link('tap1', { bridge: 'br0' })]),
  offloads: [],
  clockSource: seen('tsc\n'),
  programs: seen(['nft', 'tc']),
  pins: seen([]),
  rawSocket: seen('ICMP by raw-socket'),
  fences: seen([{ table: 'sluice_other', ports: ['eth9'] }]),
  daemon: { kind: 'ready' },
};
const away = { kind: 'unreachable', message: 'no daemon at /s', fix: 'start sluiced' } as const;
const wanted = [{ member: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }, { member: 'store', port: 'tap1', mac: '02:00:00:00:00:02' }];
const withGroup = { ...options, wanted };

test('on a good machine every check says ok', () => {
  const findings = examine({ ...GOOD, options: withGroup, offloads: [{ port: 'tap0', features: seen(new Map([['large-receive-offload', false]])) }] }, CHECKS);
  expect(findings.filter(({ level }) => level !== 'ok')).toEqual([]);
  // leftovers are only looked for where no daemon answers
  expect(new Set([...findings.map(({ check }) => check), 'leftovers'])).toEqual(new Set(CHECKS.map(({ name }) => name)));
});

describe('each fault is found, with its level and its fix', () => {
  const cases: readonly [string, Partial<Facts>, string, Level, RegExp, RegExp][] = [
    ['old Node', { nodeVersion: 'v18.19.0' }, 'node', 'fail', /v18.19.0 is too old/, /install Node/],
    ['old kernel', { kernelRelease: '5.4.0-generic' }, 'kernel', 'fail', /too old/, /5\.15/],
    ['kernel without tcx', { kernelRelease: '6.1.0-18-amd64' }, 'kernel', 'warn', /no tcx/, /6\.6/],
    ['kernel without veth', { kernelConfig: seen(new Map([...CONFIG, ['CONFIG_VETH', 'n']])) }, 'features', 'fail', /without CONFIG_VETH/, /boot/],
    ['no configuration', { kernelConfig: absent }, 'features', 'warn', /does not show/, /sluiced/],
    ['interpreted BPF', { bpfJit: seen('0') }, 'bpf-jit', 'warn', /interpreted/, /sysctl -w net\.core\.bpf_jit_enable=1/],
    ['no capabilities', { status: status('0'), daemon: away }, 'capabilities', 'fail', /CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF/, /sudo/],
    ['one capability short', { status: status('000000c000001000'), daemon: away }, 'capabilities', 'fail', /lacks CAP_NET_RAW:/, /root/],
    ['no bpffs', { mounts: seen('proc /proc proc rw 0 0\n') }, 'bpffs', 'warn', /no bpffs/, /mount -t bpf bpf \/sys\/fs\/bpf/],
    ['no libbpf', { libbpf: absent }, 'libraries', 'fail', /libbpf/, /apt-get install libbpf1/],
    ['no libpcap', { libpcap: absent }, 'libraries', 'warn', /replay/, /apt-get install libpcap0\.8/],
    ['br_netfilter', { bridgeNf: [{ name: 'bridge-nf-call-iptables', value: seen('1\n') }] }, 'br_netfilter', 'warn', /every bridged frame/, /sysctl -w net\.bridge\.bridge-nf-call-iptables=0/],
    ['no bridge', { links: seen([link('eth0')]) }, 'bridges', 'warn', /no bridge/, /ip link add br0 type bridge/],
    ['no ip', { links: absent }, 'bridges', 'warn', /no `ip` command$/, /^apt-get install iproute2$/],
    ['vlan_filtering', { links: seen([link('br0', { kind: 'bridge', vlanFiltering: true })]) }, 'bridges', 'warn', /vlan_filtering is on/, /vlan_filtering 0/],
    ['bridge down', { links: seen([link('br0', { kind: 'bridge', up: false })]) }, 'bridges', 'warn', /down/, /ip link set br0 up/],
    ['port missing', { options: withGroup, links: seen([link('br0', { kind: 'bridge' }), link('tap0', { bridge: 'br0' })]) }, 'group-ports', 'fail', /tap1 of store does not exist/, /ip tuntap add tap1/],
    ['port in no bridge', { options: withGroup, links: seen([link('tap0', { bridge: 'br0' }), link('tap1')]) }, 'group-ports', 'fail', /tap1 of store is in no bridge/, /ip link set tap1 master/],
    ['two bridges', { options: withGroup, links: seen([link('tap0', { bridge: 'br0' }), link('tap1', { bridge: 'br1' })]) }, 'group-ports', 'fail', /several bridges: br0, br1/, /all in one/],
    ['port down', { options: withGroup, links: seen([link('tap0', { bridge: 'br0', up: false }), link('tap1', { bridge: 'br0' })]) }, 'group-ports', 'warn', /tap0 of front is down/, /ip link set tap0 up/],
    ['port with the guest\'s MAC', { options: withGroup, links: seen([link('tap0', { bridge: 'br0', mac: '02:00:00:00:00:01' }), link('tap1', { bridge: 'br0' })]) }, 'group-ports', 'warn', /as its own/, /address fe:00:00:00:00:01/],
    ['LRO', { offloads: [{ port: 'eth0', features: seen(new Map([['large-receive-offload', true]])) }] }, 'offloads', 'warn', /large-receive-offload/, /ethtool -K eth0 lro off/],
    ['no such device', { offloads: [{ port: 'eth9', features: absent }] }, 'offloads', 'warn', /no such device/, /existing/],
    ['a fence of another plane', { fences: seen([{ table: 'sluice_0a1b', ports: ['tap7', 'tap1'] }]) }, 'fences', 'fail', /port tap1 is fenced off .*sluice_0a1b/, /nft delete table netdev sluice_0a1b/],
    ['no raw sockets', { rawSocket: hidden('Error: Operation not permitted') }, 'probes', 'warn', /Operation not permitted/, /CAP_NET_RAW/],
    ['raw-socket not built', { rawSocket: absent }, 'probes', 'warn', /not built/, /npm rebuild raw-socket/],
    ['slow clock', { clockSource: seen('hpet\n') }, 'clock', 'warn', /hpet is slow/, /tsc/],
    ['daemon not ready', { daemon: { kind: 'not_ready', missing: ['port tap0 is gone', 'the journal cannot be written'] } }, 'daemon', 'fail', /port tap0 is gone; the journal/, /log/],
    ['no daemon', { daemon: away }, 'daemon', 'warn', /no daemon at \/s/, /start sluiced/],
    ['hold devices left', { daemon: away, links: seen([link('br0', { kind: 'bridge' }), link('slh1'), link('slr1'), link('slq1'), link('slo1'), link('slrfoo')]) }, 'leftovers', 'warn', /slh1 slr1 slq1 slo1; /, /start sluiced/],
    ['pins left', { daemon: away, pins: seen(['sluice-abcd', 'other']) }, 'leftovers', 'warn', /\/sys\/fs\/bpf\/sluice-abcd$/, /rm -r \/sys\/fs\/bpf\/sluice-abcd$/],
  ];
  test.each(cases)('%s', (_name, over, check, level, text, fix) => {
    const found = examine({ ...GOOD, ...over }, CHECKS).filter((finding) => finding.check === check && finding.level !== 'ok');
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ level, text: expect.stringMatching(text) as string, fix: expect.stringMatching(fix) as string });
  });

  test('what it may not look at is said, never taken for good', () => {
    const dark = hidden('not allowed');
    const findings = examine({ ...GOOD, options: withGroup, daemon: away, kernelConfig: dark, bpfJit: dark, status: dark, mounts: dark, links: dark, clockSource: dark, pins: dark, bridgeNf: [{ name: 'bridge-nf-call-iptables', value: dark }], offloads: [{ port: 'tap0', features: dark }] }, CHECKS);
    for (const check of ['features', 'bpf-jit', 'capabilities', 'bpffs', 'br_netfilter', 'bridges', 'group-ports', 'offloads', 'clock', 'leftovers']) {
      expect(findings.filter((finding) => finding.check === check)).toEqual([expect.objectContaining({ level: 'warn', text: expect.stringMatching(/could not look/) as string }) as Finding]);
    }
  });

  test('a running daemon makes own capabilities and its devices nobody\'s worry', () => {
    const findings = examine({ ...GOOD, status: status('0'), links: seen([link('br0', { kind: 'bridge' }), link('slh1')]), pins: seen(['sluice-1']) }, CHECKS);
    expect(findings.filter(({ level }) => level !== 'ok')).toEqual([]);
  });

  test('every finding that is not ok has a fix, on one line', () => {
    for (const [, over] of cases) {
      for (const finding of examine({ ...GOOD, ...over }, CHECKS)) {
        expect(finding.text).not.toContain('\n');
        if (finding.level !== 'ok') expect(finding.fix).toMatch(/^[^\n]+$/);
      }
    }
  });
});

describe('a group by VXLAN', () => {
  const roadWanted = { self: 'h1', hosts: { h1: '10.0.1.1', h2: '10.0.2.1' }, outerBytes: 50 };
  const peer = { host: 'h2', address: '10.0.2.1', small: seen(true), large: seen(true) };
  const road = { addresses: seen(['127.0.0.1', '10.0.1.1']), udpPorts: seen(new Set([68, 546])), innerBytes: 1500, peers: [peer] };
  const slx = (over: Partial<Link> = {}): Link => link('slx', { kind: 'vxlan', vxlan: { port: 4789, external: true, gbp: true }, ...over });
  const good: Facts = { ...GOOD, kernelConfig: seen(new Map([...CONFIG, ['CONFIG_VXLAN', 'm']])), options: { ...options, road: roadWanted }, road };
  const withLinks = (...links: Link[]): Partial<Facts> => ({ links: seen(links) });

  test('all is well, with the device and before there is one; nothing is said of other groups', () => {
    for (const over of [{}, withLinks(slx()), { kernelConfig: absent }]) {
      const findings = examine({ ...good, ...over }, [ROAD_CHECK]);
      expect(findings.map(({ level }) => level)).toEqual(['ok', 'ok', 'ok']);
      expect(findings.at(-1)?.text).toBe('h2 (10.0.2.1) is reached with 1550 bytes');
    }
    expect(examine(GOOD, [ROAD_CHECK])).toEqual([]);
  });

  test.each<[string, Partial<Facts>, Level, RegExp, RegExp]>([
    ['no module', { kernelConfig: seen(CONFIG) }, 'fail', /without CONFIG_VXLAN/, /wire: \{ vlan \}/],
    ['nobody in the file', { options: { ...options, road: { ...roadWanted, self: 'other' } } }, 'fail', /other, has no address/, /--host NAME/],
    ['another\'s address', { road: { ...road, addresses: seen(['127.0.0.1', '10.9.9.9']) } }, 'fail', /10\.0\.1\.1 of wire\.hosts is no address of this host, h1/, /10\.9\.9\.9 for h1/],
    ['addresses not shown', { road: { ...road, addresses: hidden('not allowed') } }, 'warn', /could not look at the addresses/, /root/],
    ['port taken', withLinks(link('vx0', { kind: 'vxlan', vxlan: { port: 4789, external: true, gbp: false } })), 'fail', /vx0 has UDP port 4789/, /vxlan\.port/],
    ['port taken by a device of one VNI', withLinks(link('vxlan10', { kind: 'vxlan', vxlan: { port: 4789, external: false, gbp: false } })), 'fail', /vxlan10 has UDP port 4789/, /vxlan\.port/],
    ['port taken, ours can\'t come up', withLinks(slx({ up: false }), link('vxlan10', { kind: 'vxlan', vxlan: { port: 4789, external: false, gbp: false } })), 'fail', /vxlan10 has UDP port 4789/, /vxlan\.port/],
    ['port taken by a socket', { road: { ...road, udpPorts: seen(new Set([68, 4789])) } }, 'fail', /a socket has UDP port 4789/, /ss -uanp 'sport = :4789' .* or set vxlan\.port/],
    ['port taken by a socket, ours can\'t come up', { ...withLinks(slx({ up: false })), road: { ...road, udpPorts: seen(new Set([4789])) } }, 'fail', /a socket has UDP port 4789/, /vxlan\.port/],
    ['the port of the settings taken', { options: { ...options, road: { ...roadWanted, port: 8472 } }, road: { ...road, udpPorts: seen(new Set([8472])) } }, 'fail', /a socket has UDP port 8472/, /:8472/],
    ['sockets not shown', { road: { ...road, udpPorts: hidden('not allowed') } }, 'warn', /could not look at the UDP sockets/, /root/],
    ['another port than the settings', { options: { ...options, road: { ...roadWanted, port: 8472 } }, ...withLinks(slx()) }, 'fail', /slx has UDP port 4789 and not 8472/, /ip link del slx/],
    ['no policy ids', withLinks(slx({ vxlan: { port: 4789, external: true, gbp: false } })), 'fail', /slx carries no policy ids/, /ip link del slx/],
    ['a queue', withLinks(slx({ qdisc: 'fq_codel' })), 'fail', /slx has a queue \(fq_codel\)/, /ip link del slx/],
    ['in a bridge, down', withLinks(slx({ bridge: 'br0', up: false })), 'fail', /slx is down, is in bridge br0/, /ip link del slx/],
    ['no ip', { links: absent }, 'warn', /could not look at the VXLAN device/, /^apt-get install iproute2$/],
    ['silent', { road: { ...road, peers: [{ ...peer, small: seen(false), large: seen(false) }] } }, 'warn', /no answer from h2/, /UDP port 4789/],
    ['narrow', { road: { ...road, peers: [{ ...peer, large: seen(false) }] } }, 'warn', /1550 bytes don't reach h2 \(10\.0\.2\.1\) in one piece/, /MTU of all devices on the road to 1550/],
    ['no ping', { road: { ...road, peers: [{ ...peer, small: hidden('no `ping`: apt-get install iputils-ping') }] } }, 'warn', /could not look at the road to h2: no `ping`$/, /^apt-get install iputils-ping$/],
  ])('%s', (_name, over, level, text, fix) => {
    const found = examine({ ...good, ...over }, [ROAD_CHECK]).filter((finding) => finding.level !== 'ok');
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ level, text: expect.stringMatching(text) as string, fix: expect.stringMatching(fix) as string });
  });

  test('of its own device\'s socket, and of one at another port, nothing is said', () => {
    for (const over of [{ ...withLinks(slx()), road: { ...road, udpPorts: seen(new Set([4789])) } }, { options: { ...options, road: { ...roadWanted, port: 8472 } }, road: { ...road, udpPorts: seen(new Set([4789])) } }]) {
      expect(examine({ ...good, ...over }, [ROAD_CHECK]).map(({ level }) => level)).toEqual(['ok', 'ok', 'ok']);
    }
  });

  test('the kernel\'s table of UDP sockets is read, and nothing else in it is taken for a port', () => {
    const head = '   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n';
    const rest = ' 07 00000000:00000000 00:00000000 00000000     0        0 12B5 2 0000000000000000 0         \n';
    expect(udpPortsOf(`${head}  466: 0100007F:12B5 00000000:0000${rest}12345: 00000000:0044 0100007F:1F90${rest}`)).toEqual([4789, 68]);
    expect(udpPortsOf(`${head}  466: 00000000000000000000000001000000:2118 00000000000000000000000000000000:0000${rest}`)).toEqual([8472]);
    expect(udpPortsOf(head)).toEqual([]);
    expect(udpPortsOf('')).toEqual([]);
  });

  test('of a group across hosts, ports of members elsewhere are nobody\'s worry here', () => {
    const member = (name: string, host: string, vlan: number) => ({ name, host, nics: [{ port: `tap-${name}`, mac: '02:00:00:00:00:01', vlan }] });
    const spec = { group: 'g', commit: 'acks' as const, members: [member('a', 'h1', 0), member('b', 'h2', 7)], hold: { bytes: 1, highWater: 1 }, foreignSource: 'hold' as const, intraPath: 'redirect' as const, wire: { vxlan: 7, hosts: roadWanted.hosts } };
    expect(wantedPorts(spec, 'h1').map(({ port }) => port)).toEqual(['tap-a']);
    expect(wantedRoad(spec, 'h1')).toEqual({ ...roadWanted, outerBytes: 54 });
    expect(wantedRoad(spec, 'h1', 8472)).toEqual({ ...roadWanted, outerBytes: 54, port: 8472 });
    expect(wantedRoad({ ...spec, wire: { vlan: 7 } }, 'h1')).toBeUndefined();
    expect(examine({ ...GOOD, options: { ...options, wanted: wantedPorts(spec, 'h9') } }, CHECKS).find(({ check }) => check === 'group-ports')).toMatchObject({ level: 'warn', fix: expect.stringMatching(/--host/) as string });
  });
});

describe('the real system', () => {
  test('pings itself with what fits and not with what does not, and shows its addresses', async () => {
    const system = realSystem({ socket: '/nonexistent/s' });
    const shown = await system.addresses();
    if (shown.kind === 'seen') for (const one of shown.value) expect(one).toMatch(/^[0-9a-f.:]+$/);
    const [small, large] = [await system.ping('127.0.0.1', 84), await system.ping('192.0.2.1', 65_000)];
    if (small.kind === 'seen') expect([small.value, large.kind === 'seen' && large.value]).toEqual([true, false]);
  }, 30_000);

  test('answers every question on this machine, and nothing throws', async () => {
    const system: System = realSystem({ socket: '/nonexistent/s' });
    const facts = await look(system, { ports: ['lo', 'no-such-port'], wanted: undefined, bpffs: '/sys/fs/bpf' });
    expect(facts.daemon.kind).toBe('unreachable');
    expect(facts.status.kind).toBe('seen');
    expect(facts.mounts.kind).toBe('seen');
    if (facts.links.kind === 'seen') expect(facts.links.value.map(({ name }) => name)).toContain('lo');
    expect(examine(facts, CHECKS).length).toBeGreaterThanOrEqual(CHECKS.length - 2);
    expect(await system.readText('/nonexistent')).toEqual(absent);
    expect(await system.library('libdoesnotexist.so.7')).toEqual(absent);
    expect(await system.library('libc.so.6')).toMatchObject({ kind: 'seen' });
  });

  test('the command: a line a finding, exit 1 exactly when one fails', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sl-doctor-'));
    const served = await serve();
    try {
      const file = join(dir, 'g.yaml');
      writeFileSync(file, 'group: web\nmembers:\n  - { name: front, port: sl-none-port, mac: "02:00:00:00:00:01" }\n');
      const json = await sluice(['--json', '--socket', served.socket, 'doctor', '-f', file]);
      const findings = JSON.parse(json.out) as Finding[];
      expect(findings).toContainEqual(expect.objectContaining({ check: 'daemon', level: 'ok' }));
      const portFails = findings.filter(({ check, level }) => check === 'group-ports' && level === 'fail');
      const blind = findings.some(({ check, text }) => check === 'group-ports' && text.startsWith('could not look'));
      expect(portFails.length === 1 || blind).toBe(true);
      expect(json.code).toBe(findings.some(({ level }) => level === 'fail') ? 1 : 0);
      served.missing = ['the journal cannot be written'];
      const text = await sluice(['--socket', served.socket, 'doctor']);
      expect(text.out).toMatch(/^fail +daemon +sluiced is not ready: the journal cannot be written \| fix: /m);
      expect(text.code).toBe(1);
    } finally {
      await served.remove();
      rmSync(dir, { recursive: true });
    }
  });
});

describe('for the portable plane', () => {
  const free: Facts = {
    ...GOOD, options: { ...withGroup, ports: ['eth1'] }, status: status('0000000000003000'), libbpf: absent,
    kernelConfig: seen(new Map([['CONFIG_NF_TABLES_NETDEV', 'y']])), links: seen([link('tap0'), link('tap1'), link('eth1')]),
  };
  test('a machine without BPF is fit for it', () => {
    expect(examine(free, CHECKS_PCAP).filter(({ level }) => level !== 'ok')).toEqual([]);
  });
  const cases: readonly [string, Partial<Facts>, string, RegExp, RegExp][] = [
    ['no nft', { programs: seen(['tc']) }, 'nftables', /nft was not found/, /apt-get install nftables/],
    ['no netdev tables', { kernelConfig: seen(new Map()) }, 'nftables', /CONFIG_NF_TABLES_NETDEV/, /kernel/],
    ['no libpcap', { libpcap: absent }, 'libraries', /libpcap was not found/, /apt-get install libpcap0\.8/],
    ['a port in a bridge', { links: seen([link('tap0', { bridge: 'br0' }), link('tap1'), link('eth1')]) }, 'ports', /tap0 is in bridge br0/, /ip link set tap0 nomaster/],
    ['no such port', { links: seen([link('tap0'), link('tap1')]) }, 'ports', /eth1 does not exist/, /ip tuntap/],
    ['no CAP_NET_RAW', { status: status('0000000000001000'), daemon: away }, 'capabilities', /lacks CAP_NET_RAW:/, /root/],
  ];
  test.each(cases)('%s', (_name, over, check, text, fix) => {
    const failed = examine({ ...free, ...over }, CHECKS_PCAP).filter(({ level }) => level === 'fail');
    expect(failed.map((finding) => finding.check)).toEqual([check]);
    expect(failed[0]?.text).toMatch(text);
    expect(failed[0]?.fix).toMatch(fix);
  });
  test('UDP merging that can\'t be cut again is a warning', () => {
    const offloads = [{ port: 'eth1', features: seen(new Map([['rx-udp-gro-forwarding', true]])) }];
    expect(examine({ ...free, offloads }, CHECKS_PCAP).filter(({ level }) => level === 'warn').map(({ check }) => check)).toEqual(['udp-offloads']);
  });
});
