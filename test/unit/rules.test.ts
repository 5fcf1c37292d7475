import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LEAD_DELIVERED, MARK, MARK_SHIFT_DEFAULT, NIC_FLAG, STAMP_CLASS, VLAN_OTHER, stampPack } from '../../classifier/abi.ts';
import { FrameCursor, macParse, macWrite } from '../../classifier/frame.ts';
import { apply, classify, emptyTables, enter, express, guard, guardSelf, local, newGroup, newNic, release } from '../../classifier/rules.ts';
import type { Decision, Place, Tables } from '../../classifier/rules.ts';

/**
 * Two groups on one bridge (ifindex 100): group 0 has nics 1, 2 and 3 (the last on VLAN 7) at
 * ports 11, 12 and 13, held in 50; group 1 has nic 4 at port 14, held in 51. Port 20 is an
 * outsider's. The open colour is 1000.
 */
const mac = (n: number): number => 0x0200_0000_0000 + n;
const OUTSIDE = mac(0x99);
const flags = NIC_FLAG.protected | NIC_FLAG.ready | NIC_FLAG.guarded;

function world(): Tables {
  const t = emptyTables();
  const add = (index: number, ifindex: number, group: number, vlan: number): void => {
    t.nics.set(index, newNic({ ifindex, bridge: 100, group, member: index, flags, vlan, mac: mac(index) }));
    t.members.set(index, 0);
    t.ports.set(ifindex, index);
    t.macs.set(mac(index), [{ bridge: 100, vlan, nic: index }]);
    t.guarded.set(mac(index), [{ bridge: 100, vlan: 0, nic: index }]);
    t.devices.set(ifindex, 100);
  };
  t.groups.set(0, newGroup(1000, 50, [1, 2, 3]));
  t.groups.set(1, newGroup(1000, 51, [4]));
  add(1, 11, 0, 0);
  add(2, 12, 0, 0);
  add(3, 13, 0, 7);
  add(4, 14, 1, 0);
  t.devices.set(20, 100);
  return t;
}
function frame(dst: number, src: number, type = 0x0800, bytes = 60): Uint8Array {
  const out = new Uint8Array(bytes);
  macWrite(dst, out, 0);
  macWrite(src, out, 6);
  out[12] = type >> 8;
  out[13] = type & 0xff;
  return out;
}
const at = (ifindex: number, extra: Partial<Place> = {}): Place => ({ ifindex, ingressIfindex: ifindex, mark: 0, ...extra });
const field = (value: number): number => value << MARK_SHIFT_DEFAULT;
const held = (nic: number, lead = 0, colour = 1000): number => stampPack(STAMP_CLASS.held, nic, lead, colour);
const nicOf = (t: Tables, index: number) => {
  const nic = t.nics.get(index);
  if (nic === undefined) throw new Error(`no nic ${index}`);
  return nic;
};
const short = (d: Decision): string =>
  [d.verdict ?? '-', d.answer, d.redirect?.to ?? '', `0x${d.mark.toString(16)}`, ...d.clones.map((c) => `${c.to}:0x${c.mark.toString(16)}`)].join(' ');
const hex = (n: number): string => `0x${n.toString(16)}`;

describe('classify', () => {
  const unicast = frame(mac(2), mac(1));
  const broadcast = frame(0xffff_ffff_ffff, mac(1));

  test('a port of no member is none of its business', () => {
    expect(short(classify(world(), unicast, at(20)))).toBe('- next  0x0');
  });
  test('an unprotected nic passes, a released frame goes on and counts out', () => {
    const t = world();
    nicOf(t, 1).flags = 0;
    expect(short(classify(t, unicast, at(11)))).toBe('pass next  0x0');
    const back = classify(t, unicast, at(11, { mark: field(MARK.released) }));
    expect(short(back)).toBe(`released next  ${hex(field(MARK.released))}`);
    expect(back.cells).toEqual([{ cell: 'heldOut', nic: 1 }]);
  });
  test('the released mark alone, without the hash that only the release program knows, is held like any other', () => {
    const t = { ...world(), releaseHash: 77 };
    for (const hash of [0, 76]) expect(classify(t, frame(OUTSIDE, mac(1)), at(11, { mark: field(MARK.released), hash })).verdict).toBe('held');
    expect(classify(t, frame(OUTSIDE, mac(1)), at(11, { mark: field(MARK.released), hash: 77 })).verdict).toBe('released');
  });
  test('to a member of the same group and colour: straight to its port', () => {
    expect(short(classify(world(), unicast, at(11)))).toBe(`intra redirect 12 ${hex(field(MARK.intra))}`);
  });
  test('intraPath bridge: marked, on through the bridge', () => {
    const t = world();
    nicOf(t, 1).flags |= NIC_FLAG.intraBridge;
    expect(short(classify(t, unicast, at(11)))).toBe(`intra next  ${hex(field(MARK.intra))}`);
  });
  test.each([
    ['an outsider', frame(OUTSIDE, mac(1))],
    ['a member of another group', frame(mac(4), mac(1))],
    ['itself', frame(mac(1), mac(1))],
    ['a member in another VLAN', frame(mac(3), mac(1))],
    ['a link-local group address', frame(0x0180_c200_000e, mac(1), 0x88cc)],
    ['a member, with a foreign source', frame(mac(2), OUTSIDE)],
    ['a member, with another member as source', frame(mac(2), mac(3))],
    ['a member, with a VLAN tag it does not have', frame(mac(2), mac(1), 0x8100)],
    ['a member, double-tagged', frame(mac(2), mac(1), 0x88a8)],
  ] as [string, Uint8Array][])('held: to %s', (name, bytes) => {
    const tagged = name.includes('VLAN tag') ? bytes.with(15, 5) : bytes;
    expect(short(classify(world(), tagged, at(11)))).toBe(`held redirect 50 ${hex(held(1))}`);
  });
  test('a foreign source is dropped where the policy says so, a runt always', () => {
    const t = world();
    nicOf(t, 1).flags |= NIC_FLAG.foreignDrop;
    expect(short(classify(t, frame(mac(2), OUTSIDE), at(11)))).toBe('drop drop  0x0');
    expect(short(classify(t, new Uint8Array(13), at(11)))).toBe('drop drop  0x0');
  });
  test('a tag beside the frame is the frame\'s domain', () => {
    const t = world();
    t.macs.set(mac(2), [{ bridge: 100, vlan: 7, nic: 2 }]);
    nicOf(t, 2).vlan = 7;
    const from3 = frame(mac(2), mac(3));
    expect(classify(t, from3, at(13, { tag: { tpid: 0x8100, tci: 0xe007 } })).verdict).toBe('intra');
    expect(classify(t, from3, at(13, { tag: { tpid: 0x88a8, tci: 7 } })).verdict).toBe('held');
    expect(classify(t, from3, at(13)).verdict).toBe('held');
  });
  test('early: the receiver is behind, not ready, or has a queue', () => {
    const stamp = (colour: number): string => hex(stampPack(STAMP_CLASS.early, 2, 0, colour));
    const ahead = world();
    ahead.members.set(1, 1001);
    expect(short(classify(ahead, unicast, at(11)))).toBe(`early redirect 50 ${stamp(1001)}`);
    const joining = world();
    nicOf(joining, 2).flags = NIC_FLAG.protected;
    expect(short(classify(joining, unicast, at(11)))).toBe(`early redirect 50 ${stamp(1000)}`);
    const queued = world();
    nicOf(queued, 2).earlyIn = 3;
    nicOf(queued, 2).earlyOut = 2;
    const decision = classify(queued, unicast, at(11));
    expect(short(decision)).toBe(`early redirect 50 ${stamp(1000)}`);
    apply(queued, decision);
    expect(nicOf(queued, 2).earlyIn).toBe(4);
    nicOf(queued, 2).earlyGone = 2;
    expect(classify(queued, unicast, at(11)).verdict).toBe('intra');
  });
  test('late: recorded, then delivered; dropped where the lead does not fit', () => {
    const t = world();
    t.members.set(2, 1003);
    const record = hex(stampPack(STAMP_CLASS.late, 2, 3, 1000));
    expect(short(classify(t, unicast, at(11)))).toBe(`late redirect 12 ${hex(field(MARK.intra))} 50:${record}`);
    t.members.set(2, 1016);
    expect(short(classify(t, unicast, at(11)))).toBe('drop drop  0x0');
  });
  test('split: copies to members of the same bridge and VLAN, the original held as one that they have', () => {
    const t = world();
    const copy = `12:${hex(field(MARK.intra))}`;
    const decision = classify(t, broadcast, at(11));
    expect(short(decision)).toBe(`split redirect 50 ${hex(held(1, 1))} ${copy}`);
    expect(decision.stats).toEqual(['splitCopies']);
    apply(t, decision);
    expect(t.groups.get(0)?.heldIn[1000 % 64]).toBe(1);
    t.members.set(2, 1001);
    expect(short(classify(t, broadcast, at(11)))).toBe(`split redirect 50 ${hex(held(1, 1))} 50:${hex(stampPack(STAMP_CLASS.late, 2, 1, 1000))} ${copy}`);
    t.members.set(1, 1002);
    expect(short(classify(t, broadcast, at(11)))).toBe(`split redirect 50 ${hex(held(1, 1, 1002))} 50:${hex(stampPack(STAMP_CLASS.early, 2, 0, 1002))}`);
  });
  test('drain: held while anything is left, then passed; a multicast still goes to members once', () => {
    const t = world();
    nicOf(t, 1).flags |= NIC_FLAG.drain;
    nicOf(t, 1).heldIn = 5;
    expect(classify(t, frame(OUTSIDE, mac(1)), at(11)).verdict).toBe('held');
    nicOf(t, 1).heldOut = 3;
    nicOf(t, 1).heldGone = 2;
    expect(short(classify(t, frame(OUTSIDE, mac(1)), at(11)))).toBe('pass next  0x0');
    expect(short(classify(t, broadcast, at(11)))).toBe(`split next  ${hex(field(MARK.releasedSplit))} 12:${hex(field(MARK.intra))}`);
  });
});

describe('express', () => {
  const on = (t: Tables, mark: number, ifindex = 60): string => short(express(t, at(ifindex, { mark })));
  const short60 = (): Tables => {
    const t = world();
    t.groups.get(0)!.ringIfindex = 60;
    return t;
  };

  test('what was held and may leave is let out as release would; the rest goes on to release', () => {
    const t = short60();
    expect(on(t, held(1, 0, 999))).toBe(`- redirect 11 ${hex(field(MARK.released))}`);
    expect(on(t, held(1, 1, 999))).toBe(`- redirect 11 ${hex(field(MARK.releasedSplit))}`);
    expect(on(t, held(1))).toBe(`- next  ${hex(held(1))}`);
    nicOf(t, 1).flags |= NIC_FLAG.drain;
    expect(on(t, held(1))).toBe(`- redirect 11 ${hex(field(MARK.released))}`);
  });
  test.each([
    ['no stamp', 0], ['no class', stampPack(STAMP_CLASS.none, 1, 0, 999)], ['early', stampPack(STAMP_CLASS.early, 2, 0, 1000)],
    ['late', stampPack(STAMP_CLASS.late, 2, 1, 999)], ['no nic', held(9, 0, 999)], ['another group\'s nic', held(4, 0, 999)],
  ])('judges nothing else: %s', (_name, stamp) => {
    const decision = express(short60(), at(60, { mark: stamp }));
    expect({ answer: decision.answer, mark: decision.mark, cells: decision.cells, stats: decision.stats }).toEqual({ answer: 'next', mark: stamp, cells: [], stats: [] });
  });
  test('a ring that its group does not name has no short way', () => {
    expect(on(world(), held(1, 0, 999))).toBe(`- next  ${hex(held(1, 0, 999))}`);
    expect(on(short60(), held(1, 0, 999), 61)).toBe(`- next  ${hex(held(1, 0, 999))}`);
  });
});

describe('release', () => {
  const on = (t: Tables, mark: number, ifindex = 50): string => short(release(t, at(ifindex, { mark })));

  test('held: back to its port only if committed, or draining', () => {
    const t = world();
    expect(on(t, held(1))).toBe(`- drop  ${hex(held(1))}`);
    expect(on(t, held(1, 0, 999))).toBe(`- redirect 11 ${hex(field(MARK.released))}`);
    expect(on(t, held(1, 1, 999))).toBe(`- redirect 11 ${hex(field(MARK.releasedSplit))}`);
    nicOf(t, 1).flags |= NIC_FLAG.drain;
    expect(on(t, held(1))).toBe(`- redirect 11 ${hex(field(MARK.released))}`);
  });
  test.each([['no class', stampPack(STAMP_CLASS.none, 1, 0, 999)], ['no nic', held(9)], ['another group\'s nic', held(4, 0, 999)]])('refused: %s', (_name, stamp) => {
    const decision = release(world(), at(50, { mark: stamp }));
    expect(decision.answer).toBe('drop');
    expect(decision.stats).toEqual(['refused']);
  });
  test('the host\'s own frames through the pair are dropped, and are nobody\'s fault', () => {
    const decision = release(world(), at(50));
    expect(decision.answer).toBe('drop');
    expect(decision.stats).toEqual([]);
  });
  test('early: delivered when the receiver is there, recorded when it has gone past', () => {
    const t = world();
    const stamp = stampPack(STAMP_CLASS.early, 2, 0, 1000);
    const decision = release(t, at(50, { mark: stamp }));
    const delivered = stampPack(STAMP_CLASS.early, 2, LEAD_DELIVERED, 1000);
    expect(short(decision)).toBe(`- redirect 50 ${hex(delivered)} 12:${hex(field(MARK.intra))}`);
    expect(decision.redirect?.ingress).toBe(true);
    expect(decision.cells).toEqual([]);
    t.members.set(2, 1002);
    expect(release(t, at(50, { mark: stamp })).clones.map((c) => hex(c.mark))).toEqual([hex(stampPack(STAMP_CLASS.late, 2, 2, 1000)), hex(field(MARK.intra))]);
    const soon = release(t, at(50, { mark: stampPack(STAMP_CLASS.early, 2, 0, 1003) }));
    expect(soon.stats).toEqual(['refused']);
    expect(soon.cells).toEqual([{ cell: 'earlyOut', nic: 2 }]);
  });
  test('early: what was delivered is counted when it comes by again behind it, and goes nowhere', () => {
    const again = release(world(), at(50, { mark: stampPack(STAMP_CLASS.early, 2, LEAD_DELIVERED, 1000) }));
    expect({ answer: again.answer, clones: again.clones, cells: again.cells, stats: again.stats })
      .toEqual({ answer: 'drop', clones: [], cells: [{ cell: 'earlyOut', nic: 2 }], stats: [] });
  });
  test('late: delivered again', () => {
    expect(on(world(), stampPack(STAMP_CLASS.late, 2, 1, 999))).toBe(`- redirect 12 ${hex(field(MARK.intra))}`);
  });
  test('only what classify stamped enters the pair', () => {
    expect(enter(at(50, { mark: held(1) }), held(1)).answer).toBe('next');
    expect(enter(at(50, { mark: held(1) }), held(2)).answer).toBe('drop');
    expect(enter(at(50), 0).answer).toBe('drop');
  });
});

describe('guard', () => {
  const out = (t: Tables, bytes: Uint8Array, ifindex: number, ingressIfindex: number, mark = 0): Decision =>
    guard(t, bytes, { ifindex, ingressIfindex, mark });
  const plain = frame(OUTSIDE, mac(1));

  test('unmarked from a protected port, or with a protected source from anywhere: blocked', () => {
    expect(out(world(), frame(OUTSIDE, OUTSIDE), 20, 11).stats).toEqual(['leakBlocked']);
    expect(out(world(), plain, 14, 20).stats).toEqual(['leakBlocked']);
  });
  test('not while the nic drains, nor before the guards are armed', () => {
    const early = world();
    nicOf(early, 1).flags = NIC_FLAG.protected | NIC_FLAG.ready;
    expect(out(early, plain, 20, 11).answer).toBe('next');
    const t = world();
    nicOf(t, 1).flags |= NIC_FLAG.drain;
    expect(out(t, plain, 20, 11).answer).toBe('next');
  });
  test('released and the host\'s own pass, an unseen port does not', () => {
    expect(out(world(), plain, 20, 11, field(MARK.released)).answer).toBe('next');
    expect(out(world(), plain, 20, 0, field(MARK.local)).answer).toBe('next');
    expect(out(world(), frame(OUTSIDE, 1), 20, 77).stats).toEqual(['unvetted']);
    expect(out(world(), frame(OUTSIDE, 1), 20, 0).answer).toBe('next');
  });
  test('a released multicast is a duplicate at a member that had its copy, and there only', () => {
    const all = frame(0xffff_ffff_ffff, mac(1));
    expect(out(world(), all, 12, 11, field(MARK.releasedSplit)).stats).toEqual(['duplicate']);
    for (const port of [13, 14, 20]) expect(out(world(), all, port, 11, field(MARK.releasedSplit)).answer).toBe('next');
    expect(out(world(), frame(0x0180_c200_000e, mac(1)), 12, 11, field(MARK.releasedSplit)).answer).toBe('next');
  });
  test('intra frames stay in their group, and lose the mark there', () => {
    expect(short(out(world(), plain, 12, 11, field(MARK.intra) | 5))).toBe('- next  0x5');
    expect(short(out(world(), plain, 12, 50, field(MARK.intra)))).toBe('- next  0x0');
    for (const [port, from] of [[20, 11], [14, 11], [12, 51], [12, 14], [12, 20]] as const) {
      expect(out(world(), plain, port, from, field(MARK.intra)).stats).toEqual(['confined']);
    }
  });
  test('towards the host only MAC and mark count', () => {
    const self = (bytes: Uint8Array, mark: number): Decision => guardSelf(world(), bytes, at(100, { mark }));
    expect(self(plain, 0).stats).toEqual(['leakBlocked']);
    expect(self(plain, field(MARK.released)).answer).toBe('next');
    expect(self(plain, field(MARK.intra)).stats).toEqual(['confined']);
    expect(self(frame(OUTSIDE, OUTSIDE), 0).answer).toBe('next');
  });
  test('the host\'s frames are marked, others keep what they have', () => {
    expect(local(world(), at(100, { mark: 9 })).mark).toBe(field(MARK.local) | 9);
    expect(local(world(), at(100, { mark: field(MARK.released) })).mark).toBe(field(MARK.released));
  });
});

describe('whatever comes from a protected port', () => {
  test('goes to its hold device, to a member of its group, or nowhere (I1)', () => {
    const anyMac = fc.constantFrom(mac(1), mac(2), mac(3), mac(4), OUTSIDE, 0xffff_ffff_ffff, 0x0180_c200_0001, 0x3333_0000_0001);
    const anyFlags = fc.integer({ min: 0, max: 63 }).map((f) => (f | NIC_FLAG.protected) & ~NIC_FLAG.drain);
    fc.assert(fc.property(anyMac, anyMac, fc.constantFrom(0x0800, 0x8100, 0x88a8, 0x86dd, 0x0806, 0x9000), anyFlags,
      fc.array(fc.integer({ min: 990, max: 1020 }), { minLength: 4, maxLength: 4 }), (dst, src, type, nicFlags, colours) => {
        const t = world();
        colours.forEach((colour, i) => t.members.set(i + 1, colour));
        nicOf(t, 1).flags = nicFlags;
        const decision = classify(t, frame(dst, src, type), at(11));
        const inside = [50, 12, 13];
        expect(decision.verdict).not.toBe('pass');
        for (const sent of [...decision.clones, ...(decision.redirect === undefined ? [] : [decision.redirect])]) {
          expect(inside).toContain(sent.to);
          expect(sent.ingress).toBe(false);
        }
        if (decision.answer === 'next') expect(decision.mark).toBe(field(MARK.intra));
      }), { numRuns: 2000 });
  });
});

describe('frame cursor', () => {
  test('reads addresses, type and tag without a copy', () => {
    const c = new FrameCursor().set(frame(0x0102_0304_0506, 0xfffe_fdfc_fbfa, 0x86dd));
    expect([c.dst, c.src, c.type, c.vlan, c.isMulticast, c.hasHeader]).toEqual([0x0102_0304_0506, 0xfffe_fdfc_fbfa, 0x86dd, 0, true, true]);
    expect(c.set(frame(1, 2, 0x8100, 15)).vlan).toBe(VLAN_OTHER);
    expect(c.set(frame(1, 2, 0x8100).with(14, 0x60).with(15, 9)).vlan).toBe(9);
    expect(c.set(new Uint8Array(3)).hasHeader).toBe(false);
  });
  test('a MAC survives text, number and bytes', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (n) => {
      const text = n.toString(16).padStart(12, '0').replace(/(..)(?!$)/g, '$1:');
      expect(macParse(text)).toBe(n);
      expect(new FrameCursor().set(frame(n, 0)).dst).toBe(n);
    }));
    expect(() => macParse('02:00:00:00:00')).toThrow('not a MAC address');
  });
});
