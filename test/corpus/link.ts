/** Kinds that are no IP: control protocols, tags, lengths, and everything no stack knows. */
import { BROADCAST, type Writer } from './kinds.ts';
import { IP4_DST, IP4_SRC, ethernet, filled, hex, ipv4, join, llc, tag, tagged, u16, udp, type Part } from './bytes.ts';

export function linkKinds(w: Writer): void {
  arp(w);
  linkLocal(w);
  lengths(w);
  tags(w);
  otherTypes(w);
  unknownTypes(w);
  fillings(w);
}

function arp(w: Writer): void {
  const { source, outsider } = w.place;
  const body = (op: number, sha: Part, spa: Part, tha: Part, tpa: Part): Uint8Array =>
    join('0001 0800 06 04', u16(op), sha, spa, tha, tpa);
  const none = filled(6, 0);
  const pad = filled(18, 0);
  for (let i = 1; i <= 8; i++) {
    const target = [10, 81, 0, 100 + i];
    w.add('arp-request', ethernet(BROADCAST, source, 0x0806, join(body(1, source, IP4_SRC, none, target), pad)));
    w.add('arp-reply', ethernet(outsider, source, 0x0806, body(2, source, [10, 81, 0, i], outsider, IP4_DST)));
  }
  for (const op of [1, 2]) {
    w.add('gratuitous-arp', ethernet(BROADCAST, source, 0x0806, body(op, source, IP4_SRC, filled(6, 0xff), IP4_SRC)));
    w.add('gratuitous-arp', ethernet(BROADCAST, source, 0x0806, join(body(op, source, IP4_SRC, source, IP4_SRC), pad)));
  }
  w.add('arp-probe', ethernet(BROADCAST, source, 0x0806, body(1, source, [0, 0, 0, 0], none, IP4_SRC)));
  w.add('arp-malformed', ethernet(BROADCAST, source, 0x0806, 'ffff 0800 ff ff 0001'));
  for (const op of [3, 4]) w.add('rarp', ethernet(BROADCAST, source, 0x8035, join(body(op, source, filled(4, 0), source, filled(4, 0)), pad)));
}

/** 01:80:c2:00:00:0x and the other well-known groups of bridges and neighbours. */
function linkLocal(w: Writer): void {
  const { source } = w.place;
  const lldp = join('0207 04', source, '0403 05 7031', '0602 0078', '0a04 686f7374', '0000');
  for (const last of ['00', '03', '0e']) w.add('lldp', ethernet(`0180c20000${last}`, source, 0x88cc, lldp));
  w.add('lldp', ethernet(BROADCAST, source, 0x88cc, lldp));
  const bpdu = join('424203 0000 00 00 00', '8000', source, '00000000', '8000', source, '8001 0000 1400 0200 0f00');
  w.add('stp', llc('0180c2000000', source, bpdu));
  w.add('rstp', llc('0180c2000000', source, join('424203 0000 02 02 3c', filled(31, 1), [0])));
  w.add('pvst', llc('01000ccccccd', source, join('aaaa03 00000c 010b', filled(35, 2))));
  w.add('cdp', llc('01000ccccccc', source, join('aaaa03 00000c 2000', '02b4 0000', filled(60, 3))));
  w.add('lacp', ethernet('0180c2000002', source, 0x8809, join('0101 0114', filled(106, 0x11))));
  w.add('marker', ethernet('0180c2000002', source, 0x8809, join('0201 0110', filled(106, 0))));
  w.add('pause', ethernet('0180c2000001', source, 0x8808, join('0001 ffff', filled(42, 0))));
  w.add('pfc', ethernet('0180c2000001', source, 0x8808, join('0101 00ff', filled(42, 0x55))));
  for (const type of [0, 1, 3]) {
    w.add('eapol', ethernet('0180c2000003', source, 0x888e, join([2, type], u16(44), w.random.bytes(44))));
  }
  for (let i = 0; i < 16; i++) {
    w.add('link-local-group', ethernet(`0180c200000${i.toString(16)}`, source, 0x9000, w.random.bytes(46)));
  }
  for (const last of ['20', '21', '22']) w.add('gmrp', llc(`0180c20000${last}`, source, join('424203 0001', w.random.bytes(40))));
}

/** 802.3 lengths, right and wrong; frames shorter than Ethernet's minimum. */
function lengths(w: Writer): void {
  const { source, outsider } = w.place;
  for (const sap of ['0606', 'e0e0', 'fefe', 'f0f0', '4242', 'ffff']) {
    w.add('llc', llc(outsider, source, join(sap, '03', w.random.bytes(40 + w.random.below(200)))));
  }
  for (const type of ['0800', '0806', '809b', '8137']) {
    w.add('snap', llc(outsider, source, join('aaaa03 000000', type, w.random.bytes(60))));
  }
  for (const length of [0, 1, 45, 1500, 1501, 1535]) w.add('length-wrong', ethernet(outsider, source, length, w.random.bytes(46)));
  for (let bytes = 14; bytes < 60; bytes++) {
    w.add('runt', ethernet(outsider, source, 0x88b5, w.random.bytes(bytes - 14)));
  }
  for (const bytes of [14, 15, 33, 34, 41, 59]) {
    w.add('runt-broadcast', ethernet(BROADCAST, source, 0x88b6, w.random.bytes(bytes - 14)));
  }
  w.add('runt-ip', ethernet(outsider, source, 0x0800, [0x45]));
  w.add('runt-ip6', ethernet(outsider, source, 0x86dd, '6000'));
}

function tags(w: Writer): void {
  const { source, outsider } = w.place;
  const inner = (): Uint8Array => ethernet(outsider, source, 0x0800, ipv4({ protocol: 17, payload: udp(w.random.bytes(40)), id: w.random.below(65536) }));
  for (const vid of [1, 2, 100, 1000, 4094]) {
    w.add('vlan', tagged(inner(), tag(0x8100, vid)));
    w.add('vlan', tagged(inner(), tag(0x8100, vid, 5)));
    w.add('vlan-broadcast', tagged(ethernet(BROADCAST, source, 0x88b5, w.random.bytes(46)), tag(0x8100, vid)));
    w.add('8021ad', tagged(inner(), tag(0x88a8, vid)));
    w.add('qinq', tagged(inner(), tag(0x88a8, vid), tag(0x8100, 5000 % vid)));
    w.add('qinq-8100', tagged(inner(), tag(0x8100, vid), tag(0x8100, 7)));
    w.add('qinq-9100', tagged(inner(), tag(0x9100, vid), tag(0x8100, 7)));
  }
  for (let priority = 0; priority < 8; priority++) w.add('priority-tag', tagged(inner(), tag(0x8100, 0, priority)));
  w.add('vlan-4095', tagged(inner(), tag(0x8100, 4095)));
  w.add('vlan-dei', tagged(inner(), [0x81, 0x00, 0x10, 0x05]));
  w.add('triple-tag', tagged(inner(), tag(0x88a8, 3), tag(0x8100, 4), tag(0x8100, 5)));
  w.add('vlan-runt', tagged(ethernet(outsider, source, 0x88b5, [1, 2]), tag(0x8100, 9)));
  w.add('vlan-runt', tagged(ethernet(outsider, source, 0x88b5, []), tag(0x8100, 9)));
  w.add('vlan-arp', tagged(ethernet(BROADCAST, source, 0x0806, w.random.bytes(46)), tag(0x8100, 33)));
  w.add('vlan-llc', tagged(llc(outsider, source, join('424203', w.random.bytes(40))), tag(0x8100, 33)));
}

function otherTypes(w: Writer): void {
  const { source, outsider } = w.place;
  const packet = ipv4({ protocol: 17, payload: udp(w.random.bytes(30)) });
  const label = (value: number, bottom: 0 | 1): number[] => [...u16(value >> 4), ((value & 15) << 4) | bottom, 64];
  w.add('mpls', ethernet(outsider, source, 0x8847, join(label(100, 1), packet)));
  w.add('mpls', ethernet(outsider, source, 0x8847, join(label(3, 0), label(0xfffff, 0), label(77, 1), packet)));
  w.add('mpls-multicast', ethernet('01005e900001', source, 0x8848, join(label(200, 1), packet)));
  for (const code of [0x09, 0x19]) w.add('pppoe-discovery', ethernet(BROADCAST, source, 0x8863, join([0x11, code], '0000 0004 0101 0000')));
  w.add('pppoe-session', ethernet(outsider, source, 0x8864, join('1100 1234', u16(packet.length + 2), '0021', packet)));
  w.add('ptp', ethernet('011b19000000', source, 0x88f7, join('0002 002c 00 00 0200', filled(36, 0))));
  w.add('ptp', ethernet('0180c200000e', source, 0x88f7, join('0202 0036 00 00 0000', filled(46, 0))));
  for (let level = 0; level < 8; level += 3) w.add('cfm', ethernet(`0180c200003${level}`, source, 0x8902, join([level << 5, 1, 4, 70], filled(71, 9))));
  w.add('macsec', ethernet(outsider, source, 0x88e5, join('2c00 00000001', w.random.bytes(72))));
  w.add('wake-on-lan', ethernet(BROADCAST, source, 0x0842, join('ffffffffffff', ...Array.from({ length: 16 }, () => outsider))));
  w.add('aoe', ethernet(BROADCAST, source, 0x88a2, join('1000 ffff ff 01 00000001', w.random.bytes(36))));
  w.add('fcoe', ethernet('0efc00010101', source, 0x8906, join(filled(13, 0), '2e', w.random.bytes(200), '41', filled(3, 0))));
  w.add('fip', ethernet('011018010002', source, 0x8914, join('1000 0001 0001 0002', w.random.bytes(40))));
  w.add('profinet', ethernet('010ecf000000', source, 0x8892, w.random.bytes(46)));
  w.add('ethercat', ethernet(BROADCAST, source, 0x88a4, w.random.bytes(46)));
  w.add('homeplug', ethernet('00b052000001', source, 0x88e1, w.random.bytes(46)));
  w.add('batman', ethernet(BROADCAST, source, 0x4305, w.random.bytes(60)));
  w.add('trill', ethernet('0180c2000040', source, 0x22f3, w.random.bytes(60)));
  w.add('isis', llc('0180c2000014', source, join('fefe03 83', w.random.bytes(80))));
  w.add('ipx', ethernet(BROADCAST, source, 0x8137, join('ffff 0022', w.random.bytes(32))));
  w.add('appletalk', ethernet('090007ffffff', source, 0x809b, w.random.bytes(46)));
  w.add('roce', ethernet(outsider, source, 0x8915, w.random.bytes(90)));
  w.add('nsh', ethernet(outsider, source, 0x894f, w.random.bytes(60)));
  w.add('loopback-ctp', ethernet('cf0000000000', source, 0x9000, w.random.bytes(46)));
}

function unknownTypes(w: Writer): void {
  const { source, outsider } = w.place;
  for (let i = 0; i < 40; i++) {
    const type = 0x0600 + w.random.below(0xfa00 - 1);
    if ([0x8100, 0x88a8, 0x0800, 0x86dd].includes(type)) continue;
    w.add('unknown-type', ethernet(i % 4 === 0 ? BROADCAST : outsider, source, type, w.random.bytes(1 + w.random.below(600))));
  }
  for (const type of [0x0600, 0x0601, 0x88b5, 0x88b6, 0xfffe, 0xffff]) w.add('edge-type', ethernet(outsider, source, type, w.random.bytes(46)));
  for (let i = 0; i < 6; i++) w.add('unknown-unicast', ethernet(hex(`02ee0000000${i}`), source, 0x88b5, w.random.bytes(46)));
}

function fillings(w: Writer): void {
  const { source, outsider, mtu } = w.place;
  for (const value of [0x00, 0xff, 0xaa, 0x55]) {
    w.add('filled', ethernet(outsider, source, 0x88b5, filled(46, value)));
    w.add('filled', ethernet(outsider, source, 0x88b5, filled(mtu, value)));
  }
  w.add('all-zero-type', ethernet(outsider, source, 0x0000, filled(46, 0)));
  for (const less of [0, 1, 2, 3, 4, 5]) {
    w.add('max-size', ethernet(outsider, source, 0x88b5, w.random.bytes(mtu - less)));
    w.add('max-size-vlan', tagged(ethernet(outsider, source, 0x88b5, w.random.bytes(mtu - less)), tag(0x8100, 12)));
  }
  for (const bytes of [1501, 2000, 4096, 8192, 8999, 9000]) {
    if (bytes <= mtu) w.add('jumbo', ethernet(outsider, source, 0x88b5, w.random.bytes(bytes)));
    if (bytes <= mtu) w.add('jumbo-broadcast', ethernet(BROADCAST, source, 0x88b5, w.random.bytes(bytes)));
  }
}
