import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as abi from '../../classifier/abi.ts';
import { HOLD_BUCKETS_MS } from '../../proxy/ports.ts';

/**
 * One header, one mirror: what the compiler says of abi.h is what abi.ts says, and the committed
 * kernel object is of the committed sources.
 */
const home = resolve(import.meta.dirname, '../../classifier');

/** C expression -> what abi.ts has for it. */
const expected: Readonly<Record<string, number>> = {
  SLUICE_ABI_VERSION: abi.ABI_VERSION,
  SLUICE_GROUPS_MAX: abi.GROUPS_MAX,
  SLUICE_NICS_MAX: abi.NICS_MAX,
  SLUICE_MEMBERS_MAX: abi.MEMBERS_MAX,
  SLUICE_GROUP_NICS_MAX: abi.GROUP_NICS_MAX,
  SLUICE_DEVICES_MAX: abi.DEVICES_MAX,
  SLUICE_NEAR_MAX: abi.NEAR_MAX,
  SLUICE_VLANS_MAX: abi.VLANS_MAX,
  SLUICE_RESIDUES: abi.RESIDUES,
  SLUICE_CLASS_NONE: abi.STAMP_CLASS.none,
  SLUICE_CLASS_HELD: abi.STAMP_CLASS.held,
  SLUICE_CLASS_EARLY: abi.STAMP_CLASS.early,
  SLUICE_CLASS_LATE: abi.STAMP_CLASS.late,
  SLUICE_CLASS_SHIFT: abi.CLASS_SHIFT,
  SLUICE_NIC_SHIFT: abi.NIC_SHIFT,
  SLUICE_NIC_MASK: abi.NIC_MASK,
  SLUICE_LEAD_SHIFT: abi.LEAD_SHIFT,
  SLUICE_LEAD_MASK: abi.LEAD_MASK,
  SLUICE_LEAD_DELIVERED: abi.LEAD_DELIVERED,
  SLUICE_LEAD_SPLIT: abi.LEAD.split,
  SLUICE_LEAD_SPILLED: abi.LEAD.spilled,
  SLUICE_LEAD_NOTICE: abi.LEAD.notice,
  SLUICE_LANES: abi.LANES,
  SLUICE_MARKER_SHIFT: abi.MARKER.shift,
  SLUICE_MARKER: abi.MARKER.marker,
  SLUICE_MARKER_GROUP_SHIFT: abi.MARKER.groupShift,
  SLUICE_MARKER_ROUND: abi.MARKER.round,
  SLUICE_MARKER_FILLER: abi.MARKER.filler,
  SLUICE_LANE_NONE: abi.LANE_STATE.none,
  SLUICE_LANE_FREE: abi.LANE_STATE.free,
  SLUICE_LANE_FILLING: abi.LANE_STATE.filling,
  SLUICE_LANE_OPEN: abi.LANE_STATE.open,
  SLUICE_LANE_SPILLING: abi.LANE_STATE.spilling,
  SLUICE_FRAME_COST: abi.FRAME_COST,
  SLUICE_LANE_OUT_OF_ROOM: abi.LANE_FULL.outOfRoom,
  SLUICE_LANE_UNFIT: abi.LANE_FULL.unfit,
  SLUICE_LANE_SEGMENT_MIN: abi.LANE_SEGMENT_MIN,
  SLUICE_LANE_FRAME_MAX: abi.LANE_FRAME_MAX,
  SLUICE_HOLD_BUCKETS: abi.HOLD_BUCKETS,
  SLUICE_COLOUR_BITS: abi.COLOUR_BITS,
  SLUICE_COLOUR_MASK: abi.COLOUR_MASK,
  SLUICE_MARK_NONE: abi.MARK.none,
  SLUICE_MARK_RELEASED: abi.MARK.released,
  SLUICE_MARK_RELEASED_SPLIT: abi.MARK.releasedSplit,
  SLUICE_MARK_INTRA: abi.MARK.intra,
  SLUICE_MARK_LOCAL: abi.MARK.local,
  SLUICE_MARK_MASK_DEFAULT: abi.MARK_MASK_DEFAULT,
  SLUICE_MARK_SHIFT_DEFAULT: abi.MARK_SHIFT_DEFAULT,
  SLUICE_VLAN_OTHER: abi.VLAN_OTHER,
  SLUICE_NIC_PROTECTED: abi.NIC_FLAG.protected,
  SLUICE_NIC_DRAIN: abi.NIC_FLAG.drain,
  SLUICE_NIC_FOREIGN_DROP: abi.NIC_FLAG.foreignDrop,
  SLUICE_NIC_INTRA_BRIDGE: abi.NIC_FLAG.intraBridge,
  SLUICE_NIC_READY: abi.NIC_FLAG.ready,
  SLUICE_NIC_GUARDED: abi.NIC_FLAG.guarded,
  SLUICE_NIC_REMOTE: abi.NIC_FLAG.remote,
  SLUICE_NIC_FIRST: abi.NIC_FLAG.first,
  SLUICE_WIRE_EPOCH_BITS: abi.WIRE_EPOCH_BITS,
  SLUICE_WIRE_EPOCH_MASK: abi.WIRE_EPOCH_MASK,
  SLUICE_WIRE_GENERATION_MASK: abi.WIRE_GENERATION_MASK,
  SLUICE_WIRE_CLOSED: abi.WIRE_CLOSED,
  SLUICE_WIRE_AHEAD_MAX: abi.WIRE_AHEAD_MAX,
  SLUICE_WIRE_GBP: abi.WIRE_GBP,
  SLUICE_VERDICTS: abi.VERDICTS.length,
  ...Object.fromEntries(abi.VERDICTS.map((name, i) => [`SLUICE_VERDICT_${name.toUpperCase()}`, i])),
  ...layout('struct sluice_group', abi.GROUP),
  ...layout('struct sluice_nic', abi.NIC),
  ...layout('struct sluice_lane', abi.LANE),
  ...layout('struct sluice_queue', abi.QUEUE),
  ...layout('struct sluice_member', abi.MEMBER),
  ...layout('struct sluice_near', abi.NEAR),
  ...layout('struct sluice_mac_key', abi.MAC_KEY),
  ...layout('struct sluice_config', abi.CONFIG),
  'sizeof(struct sluice_stats)': abi.STATS.size,
  'sizeof(struct sluice_count)': abi.STATS.countSize,
  ...Object.fromEntries(
    (['in', 'verdict', 'splitCopies', 'leakBlocked', 'unvetted', 'confined', 'duplicate', 'refused', 'redelivered', 'remote', 'stale', 'unknown', 'foreign', 'elsewhere', 'skewed', 'forged'] as const)
      .map((field) => [`offsetof(struct sluice_stats, ${field})`, abi.STATS[field]]),
  ),
  'sizeof(struct sluice_guard_key)': abi.MAC_KEY.size,
  'offsetof(struct sluice_guard_key, mac)': abi.MAC_KEY.mac,
  'offsetof(struct sluice_guard_key, bridge)': abi.MAC_KEY.bridge,
};
function layout(name: string, fields: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(fields).map(([field, at]) => [field === 'size' ? `sizeof(${name})` : `offsetof(${name}, ${field})`, at]),
  );
}

/** What the compiler makes of each expression. */
function compiled(expressions: readonly string[]): Record<string, number> {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-abi-'));
  try {
    const lines = expressions.map((e) => `  printf("%s\\t%llu\\n", ${JSON.stringify(e)}, (unsigned long long)(${e}));`);
    writeFileSync(join(dir, 'abi.c'), [
      '#include <stdio.h>', '#include <stddef.h>', '#include <linux/types.h>', `#include "${join(home, 'abi.h')}"`,
      'int main(void) {', ...lines, '  return 0; }', '',
    ].join('\n'));
    execFileSync('cc', ['-o', join(dir, 'abi'), join(dir, 'abi.c')]);
    const out = execFileSync(join(dir, 'abi'), { encoding: 'utf8' });
    return Object.fromEntries(out.trim().split('\n').map((line): [string, number] => {
      const [expression = '', value] = line.split('\t');
      return [expression, Number(value)];
    }));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

describe('abi.ts mirrors abi.h', () => {
  test('every constant, size and offset', () => {
    expect(compiled(Object.keys(expected))).toEqual(expected);
  });

  test('no constant of the header is missing from the comparison', () => {
    const header = readFileSync(join(home, 'abi.h'), 'utf8');
    const names = [...header.matchAll(/^#define (SLUICE_\w+) +[0-9]/gm)].map((m) => m[1] ?? '');
    expect(names.length).toBeGreaterThan(30);
    expect(names.filter((name) => !(name in expected) && name !== 'SLUICE_HOLD_BOUNDS_US')).toEqual([]);
  });

  test('hold times are counted in the buckets that the metrics name', () => {
    const bounds = /^#define SLUICE_HOLD_BOUNDS_US (.*)$/m.exec(readFileSync(join(home, 'abi.h'), 'utf8'))?.[1]?.split(',').map(Number);
    expect(bounds).toEqual(HOLD_BUCKETS_MS.map((ms) => ms * 1e3));
    expect(abi.HOLD_BUCKETS).toBe(HOLD_BUCKETS_MS.length + 1);
  });
});

describe('stamp', () => {
  const anyClass = fc.constantFrom(abi.STAMP_CLASS.held, abi.STAMP_CLASS.early, abi.STAMP_CLASS.late);
  const anyColour = fc.integer({ min: 0, max: 0xffff_ffff });

  test('unpacks to what was packed, is never 0 and fits 32 bits', () => {
    fc.assert(fc.property(anyClass, fc.integer({ min: 1, max: 4095 }), fc.integer({ min: 0, max: 15 }), anyColour, (cls, nic, lead, colour) => {
      const stamp = abi.stampPack(cls, nic, lead, colour);
      expect(stamp).toBeGreaterThan(0);
      expect(stamp).toBeLessThanOrEqual(0xffff_ffff);
      expect([abi.stampClass(stamp), abi.stampNic(stamp), abi.stampLead(stamp), abi.stampColour(stamp)])
        .toEqual([cls, nic, lead, colour % 16384]);
    }));
  });

  test('a colour is found again from its 14 bits anywhere within half the circle, over every wrap', () => {
    fc.assert(fc.property(anyColour, fc.integer({ min: -8191, max: 8191 }), (near, offset) => {
      const colour = (near + offset) >>> 0;
      expect(abi.colourNear(colour & abi.COLOUR_MASK, near)).toBe(colour);
      expect(abi.serial14(colour, near)).toBe(offset);
      expect(abi.serial32(colour, near)).toBe(offset);
    }));
  });
});

describe('classify.bpf.o', () => {
  const object = readFileSync(join(home, 'classify.bpf.o'));
  const made = /sha256:([0-9a-f]{64}) clang:([0-9.]+)/.exec(object.toString('latin1'));

  test('is of the committed sources', () => {
    const headers = readdirSync(home).filter((file) => file.endsWith('.h'));
    expect(headers.sort()).toEqual(['abi.h', 'arrive.bpf.h', 'deliver.bpf.h', 'frame.bpf.h', 'guard.bpf.h', 'hold.bpf.h', 'lane.bpf.h', 'maps.bpf.h', 'tunnel.bpf.h', 'wire.bpf.h']);
    const sources = ['abi.h', 'maps.bpf.h', 'frame.bpf.h', 'wire.bpf.h', 'tunnel.bpf.h', 'hold.bpf.h', 'lane.bpf.h', 'guard.bpf.h', 'deliver.bpf.h', 'arrive.bpf.h', 'classify.bpf.c'].map((file) => readFileSync(join(home, file)));
    expect(made?.[1], 'run `make object` and commit the result').toBe(createHash('sha256').update(Buffer.concat(sources)).digest('hex'));
  });

  test('shows nothing of where it was built', () => {
    const strings = object.toString('latin1').match(/\/[\w./-]{6,}/g) ?? [];
    expect(strings.filter((path) => !path.startsWith('/sluice/') && !path.startsWith('/usr/include/'))).toEqual([]);
  });

  const here = clangVersion();
  test(`built again by the same compiler (${made?.[2]}) gives the same bytes`, () => {
    if (here !== made?.[2]) {
      // Another compiler, or none: the sum above is the proof there is.
      expect(made?.[2]).toMatch(/^\d+\.\d+/);
      return;
    }
    const dir = mkdtempSync(join(tmpdir(), 'sluice-object-'));
    try {
      execFileSync(join(home, 'build.sh'), [join(dir, 'again.o')]);
      expect(readFileSync(join(dir, 'again.o')).equals(object)).toBe(true);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

function clangVersion(): string | undefined {
  try {
    return /clang version ([0-9][0-9.]*)/.exec(execFileSync('clang', ['--version'], { encoding: 'utf8' }))?.[1];
  } catch {
    return undefined;
  }
}
