/** Kinds over IPv4 and IPv6: transports, fragments, options, wrong checksums, groups, tunnels. */
import { BROADCAST, type Writer } from './kinds.ts';
import {
  IP6_SRC, ethernet, filled, hex, icmp4, icmp6, ipv4, ipv6, join, tag, tagged, tcp, u16, u32, udp, type Ip4, type Part,
} from './bytes.ts';

export function networkKinds(w: Writer): void {
  transports(w);
  fragments(w);
  optionsAndSums(w);
  groups4(w);
  neighbours6(w);
  extensions6(w);
  tunnels(w);
  damaged(w);
}

const over4 = (w: Writer, kind: string, ip: Ip4, dst: Part = w.place.outsider): void =>
  w.add(kind, ethernet(dst, w.place.source, 0x0800, ipv4({ id: w.random.below(65536), ...ip })));
const over6 = (w: Writer, kind: string, packet: Uint8Array, dst: Part = w.place.outsider): void =>
  w.add(kind, ethernet(dst, w.place.source, 0x86dd, packet));

function transports(w: Writer): void {
  const { random } = w;
  for (const bytes of [0, 1, 7, 18, 64, 511, 1000, 1400]) {
    over4(w, 'udp', { protocol: 17, payload: udp(random.bytes(bytes)) });
    over4(w, 'tcp', { protocol: 6, payload: tcp(random.bytes(bytes), 0x18) });
    over6(w, 'udp6', ipv6(17, udp(random.bytes(bytes), 5789, 0, 6)));
    over6(w, 'tcp6', ipv6(6, tcp(random.bytes(bytes), 0x18, [], 0, 6)));
  }
  for (const flags of [0x02, 0x12, 0x04, 0x01, 0x29, 0x00, 0xff, 0xc2]) {
    over4(w, 'tcp-flags', { protocol: 6, payload: tcp([], flags, '020405b4 01030307 0402 0000') });
  }
  for (const type of [0, 3, 5, 8, 11, 13]) over4(w, 'icmp', { protocol: 1, payload: icmp4(type, 0, random.bytes(56)) });
  over4(w, 'sctp', { protocol: 132, payload: join(u16(5000), u16(5001), u32(random.u32()), u32(random.u32()), '01000014', random.bytes(16)) });
  over4(w, 'dccp', { protocol: 33, payload: random.bytes(40) });
  over4(w, 'esp', { protocol: 50, payload: join(u32(0x1234), u32(1), random.bytes(84)) });
  over4(w, 'ah', { protocol: 51, payload: join('11040000', u32(0x1234), u32(1), random.bytes(12), udp(random.bytes(20))) });
  over4(w, 'ospf', { protocol: 89, payload: join('0201 002c', random.bytes(40)), dst: [224, 0, 0, 5], ttl: 1 }, '01005e000005');
  over4(w, 'vrrp', { protocol: 112, payload: join('2101 6401', random.bytes(16)), dst: [224, 0, 0, 18], ttl: 255 }, '01005e000012');
  over4(w, 'pim', { protocol: 103, payload: join('2000', random.bytes(30)), dst: [224, 0, 0, 13], ttl: 1 }, '01005e00000d');
  for (const protocol of [0, 2, 4, 41, 46, 47, 88, 97, 115, 137, 253, 254, 255]) over4(w, 'protocol', { protocol, payload: random.bytes(44) });
  over4(w, 'dhcp', { protocol: 17, payload: udp(join('01010600', random.bytes(296)), 67), src: [0, 0, 0, 0], dst: [255, 255, 255, 255] }, BROADCAST);
  over4(w, 'dns', { protocol: 17, payload: udp('abcd 0100 0001 0000 0000 0000 03777777 00 0001 0001', 53) });
  over4(w, 'ntp', { protocol: 17, payload: udp(join([0x23], filled(47, 0)), 123) });
  over4(w, 'quic', { protocol: 17, payload: udp(join('c0 00000001 08', random.bytes(1180)), 443) });
  over4(w, 'nfs', { protocol: 6, payload: tcp(join('80000080', random.bytes(128)), 0x18, '0101080a 00000001 00000002') });
}

function fragments(w: Writer): void {
  const whole = udp(w.random.bytes(3992));
  for (let at = 0, i = 0; at < whole.length; at += 1000, i++) {
    const more = at + 1000 < whole.length ? 0x2000 : 0;
    over4(w, 'fragment', { protocol: 17, id: 4711, fragment: more | (at / 8), payload: whole.subarray(at, at + 1000) });
    const header = join([17, 0], u16(at | (more === 0 ? 0 : 1)), u32(4711));
    over6(w, 'fragment6', ipv6(44, join(header, whole.subarray(at, at + 1000))));
  }
  over4(w, 'fragment-tiny', { protocol: 6, id: 1, fragment: 0x2000, payload: tcp([], 2).subarray(0, 8) });
  over4(w, 'fragment-overlap', { protocol: 6, id: 1, fragment: 1, payload: tcp(w.random.bytes(64), 2).subarray(8) });
  over4(w, 'fragment-end', { protocol: 17, id: 2, fragment: 0x1fff, payload: w.random.bytes(64) });
  over4(w, 'fragment-flags', { protocol: 17, id: 3, fragment: 0xc000, payload: udp(w.random.bytes(20)) });
  over6(w, 'fragment6-atomic', ipv6(44, join([17, 0, 0, 0], u32(99), udp(w.random.bytes(20), 5789, 0, 6))));
}

function optionsAndSums(w: Writer): void {
  const { random } = w;
  for (const options of ['94040000', '01010101', '0707040a 51000100', '8307040a 51000500', '44080500 00000000', '86060000 00030102 00000000']) {
    over4(w, 'ip-options', { protocol: 17, options, payload: udp(random.bytes(24)) });
  }
  over4(w, 'ip-options-full', { protocol: 17, options: filled(40, 1), payload: udp(random.bytes(24)) });
  for (const spoil of [1, 0x100, 0x7fff]) {
    over4(w, 'bad-ip-sum', { protocol: 17, spoil, payload: udp(random.bytes(24)) });
    over4(w, 'bad-udp-sum', { protocol: 17, payload: udp(random.bytes(24), 5789, spoil) });
    over4(w, 'bad-tcp-sum', { protocol: 6, payload: tcp(random.bytes(24), 0x18, [], spoil) });
    over6(w, 'bad-udp6-sum', ipv6(17, udp(random.bytes(24), 5789, spoil, 6)));
  }
  const bare = udp(random.bytes(24));
  bare.set([0, 0], 6);
  over4(w, 'udp-no-sum', { protocol: 17, payload: bare });
  for (const ttl of [0, 1, 255]) over4(w, 'ttl', { protocol: 17, ttl, payload: udp(random.bytes(24)) });
  for (const tos of [0x03, 0xb8, 0xff]) over4(w, 'tos', { protocol: 17, tos, payload: udp(random.bytes(24)) });
  for (const src of [[127, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]]) {
    over4(w, 'martian', { protocol: 17, src, payload: udp(random.bytes(24)) });
  }
}

function groups4(w: Writer): void {
  const query = (type: number, group: Part): Uint8Array => icmp4(type, type === 0x11 ? 100 : 0, group);
  const router = '94040000';
  over4(w, 'igmp-query', { protocol: 2, ttl: 1, options: router, dst: [224, 0, 0, 1], payload: query(0x11, [0, 0, 0, 0]) }, '01005e000001');
  for (const type of [0x12, 0x16]) {
    over4(w, 'igmp-report', { protocol: 2, ttl: 1, options: router, dst: [239, 1, 2, 3], payload: query(type, [239, 1, 2, 3]) }, '01005e010203');
  }
  over4(w, 'igmp-leave', { protocol: 2, ttl: 1, options: router, dst: [224, 0, 0, 2], payload: query(0x17, [239, 1, 2, 3]) }, '01005e000002');
  over4(w, 'igmp3-report', { protocol: 2, ttl: 1, options: router, dst: [224, 0, 0, 22], payload: icmp4(0x22, 0, '00000001 04000000 ef010203') }, '01005e000016');
  for (let i = 1; i <= 6; i++) {
    over4(w, 'multicast', { protocol: 17, ttl: 4, dst: [239, 1, 2, i], payload: udp(w.random.bytes(40)) }, `01005e01020${i}`);
    over4(w, 'broadcast', { protocol: 17, dst: [10, 81, 0, 255], payload: udp(w.random.bytes(20 + i)) }, BROADCAST);
  }
  over4(w, 'mdns', { protocol: 17, ttl: 255, dst: [224, 0, 0, 251], payload: udp(w.random.bytes(60), 5353) }, '01005e0000fb');
  over4(w, 'ssdp', { protocol: 17, dst: [239, 255, 255, 250], payload: udp(w.random.bytes(100), 1900) }, '01005e7ffffa');
}

function neighbours6(w: Writer): void {
  const { source, outsider } = w.place;
  const allNodes = hex('ff02 0000 0000 0000 0000 0000 0000 0001');
  const allRouters = hex('ff02 0000 0000 0000 0000 0000 0000 0002');
  const solicited = hex('ff02 0000 0000 0000 0000 0001 ff00 00fe');
  const option = (type: number): Uint8Array => join([type, 1], source);
  const nd = (kind: string, type: number, body: Part, dst: Part, mac: Part): void =>
    over6(w, kind, ipv6(58, icmp6(type, 0, body, dst), dst, IP6_SRC, 255), mac);
  nd('nd-solicit', 135, join(u32(0), solicited, option(1)), solicited, '3333ff0000fe');
  nd('nd-advertise', 136, join(u32(0x60000000), IP6_SRC, option(2)), hex('fe80 0000 0000 0000 0051 00ff fe00 00fe'), outsider);
  nd('nd-unsolicited', 136, join(u32(0x20000000), IP6_SRC, option(2)), allNodes, '333300000001');
  nd('nd-router-solicit', 133, join(u32(0), option(1)), allRouters, '333300000002');
  nd('nd-router-advert', 134, join('40000708', u32(0), u32(0), option(1)), allNodes, '333300000001');
  nd('nd-redirect', 137, join(u32(0), IP6_SRC, solicited), solicited, outsider);
  const hopByHop = (body: Uint8Array): Uint8Array => join([58, 0], '0502 0000 0100', body);
  const mld2 = hex('ff02 0000 0000 0000 0000 0000 0000 0016');
  for (const [kind, type, dst, mac] of [
    ['mld-query', 130, allNodes, '333300000001'], ['mld-report', 131, solicited, '3333ff0000fe'],
    ['mld-done', 132, allRouters, '333300000002'], ['mld2-report', 143, mld2, '333300000016'],
  ] as const) {
    over6(w, kind, ipv6(0, hopByHop(icmp6(type, 0, join(u32(0), solicited), dst)), dst, IP6_SRC, 1), mac);
  }
  for (const type of [1, 2, 3, 4, 128, 129]) over6(w, 'icmp6', ipv6(58, icmp6(type, 0, w.random.bytes(48))));
  nd('nd-truncated', 135, u32(0), solicited, '3333ff0000fe');
}

function extensions6(w: Writer): void {
  const { random } = w;
  const body = udp(random.bytes(32), 5789, 0, 6);
  for (const next of [0, 43, 60, 135]) over6(w, 'extension6', ipv6(next, join([17, 0], '0104 0000 0000', body)));
  over6(w, 'extension6-chain', ipv6(0, join('3c 00 0104 00000000', '2b 00 0104 00000000', '11 00 0104 00000000', body)));
  over6(w, 'no-next6', ipv6(59, random.bytes(12)));
  over6(w, 'jumbogram6', join(u32(0x60000000), u16(0), [0, 64], IP6_SRC, IP6_SRC, '1100 c204 0001 0010', random.bytes(80)));
  over6(w, 'ip6-in-ip6', ipv6(41, ipv6(17, body)));
  over6(w, 'ip4-in-ip6', ipv6(4, ipv4({ protocol: 17, payload: udp(random.bytes(16)) })));
}

function tunnels(w: Writer): void {
  const { random } = w;
  const { source, outsider } = w.place;
  const inner = (): Uint8Array => ethernet(outsider, source, 0x0800, ipv4({ protocol: 6, payload: tcp(random.bytes(200), 0x18) }));
  for (let vni = 1; vni <= 4; vni++) {
    over4(w, 'vxlan', { protocol: 17, payload: udp(join('08000000', u32(vni << 8), inner()), 4789) });
    over4(w, 'geneve', { protocol: 17, payload: udp(join('0000 6558', u32(vni << 8), inner()), 6081) });
  }
  over4(w, 'geneve-options', { protocol: 17, payload: udp(join('0240 6558', u32(0x500), '0102 80 01 00000007', inner()), 6081) });
  over4(w, 'vxlan-gpe', { protocol: 17, payload: udp(join('0c000003', u32(0x700), inner()), 4790) });
  over4(w, 'gre', { protocol: 47, payload: join('00000800', ipv4({ protocol: 17, payload: udp(random.bytes(30)) })) });
  over4(w, 'gre-key', { protocol: 47, payload: join('20006558', u32(77), inner()) });
  over4(w, 'erspan', { protocol: 47, payload: join('100088be', u32(1), u32(0x10000000), inner()) });
  over4(w, 'ipip', { protocol: 4, payload: ipv4({ protocol: 17, payload: udp(random.bytes(30)) }) });
  over4(w, '6in4', { protocol: 41, payload: ipv6(17, udp(random.bytes(30), 5789, 0, 6)) });
  over4(w, 'l2tp', { protocol: 115, payload: join(u32(9), inner()) });
  over4(w, 'wireguard', { protocol: 17, payload: udp(join('04000000', random.bytes(92)), 51820) });
  over4(w, 'gtp', { protocol: 17, payload: udp(join('30ff 0024', u32(5), random.bytes(36)), 2152) });
  over4(w, 'mpls-in-udp', { protocol: 17, payload: udp(join('00064140', random.bytes(40)), 6635) });
  w.add('vlan-vxlan', tagged(ethernet(outsider, source, 0x0800, ipv4({ protocol: 17, payload: udp(join('08000000', u32(0x900), inner()), 4789) })), tag(0x8100, 21)));
}

/** Headers that lie about themselves: a bridge forwards them, and so must we. */
function damaged(w: Writer): void {
  const { source, outsider } = w.place;
  const good = ipv4({ protocol: 17, payload: udp(w.random.bytes(40)) });
  const with4 = (change: (bytes: Uint8Array) => void): void => {
    const bytes = good.slice();
    change(bytes);
    w.add('damaged-ip', ethernet(outsider, source, 0x0800, bytes));
  };
  with4((b) => b.set([0x44], 0));
  with4((b) => b.set([0x4f], 0));
  with4((b) => b.set([0x65], 0));
  with4((b) => b.set(u16(10), 2));
  with4((b) => b.set(u16(65535), 2));
  with4((b) => b.set(u16(3), 24));
  for (const bytes of [1, 8, 19, 20, 27]) w.add('truncated-ip', ethernet(outsider, source, 0x0800, good.subarray(0, bytes)));
  const good6 = ipv6(6, tcp(w.random.bytes(40), 0x10, [], 0, 6));
  for (const bytes of [1, 39, 40, 59]) w.add('truncated-ip6', ethernet(outsider, source, 0x86dd, good6.subarray(0, bytes)));
  w.add('ip-trailer', ethernet(outsider, source, 0x0800, join(good, w.random.bytes(22))));
  w.add('ip6-as-ip4', ethernet(outsider, source, 0x0800, good6));
  w.add('ip4-as-ip6', ethernet(outsider, source, 0x86dd, good));
}
