import { expect, test } from 'vitest';
import * as abi from '../../classifier/abi.ts';
import { GROUP_LAYOUT, NIC_LAYOUT } from '../../proxy/plane/cells.ts';
import * as lanes from '../../proxy/plane/lane-cells.ts';
import { laneMarker } from '../../proxy/edge/lane-valves.ts';
import * as stamp from '../../proxy/ring/stamp.ts';

/** abi.ts is itself proved equal to the kernel's header; so this proves the hold loop's mirror. */
test('the hold loop reads the stamps and cells that the kernel writes', () => {
  expect([stamp.CLASS_HELD, stamp.CLASS_EARLY, stamp.CLASS_LATE]).toEqual([abi.STAMP_CLASS.held, abi.STAMP_CLASS.early, abi.STAMP_CLASS.late]);
  expect([stamp.NICS_MAX, stamp.RESIDUES, stamp.COLOUR_MASK, stamp.LEAD_MAX]).toEqual([abi.NICS_MAX, abi.RESIDUES, abi.COLOUR_MASK, abi.LEAD_MASK]);
  expect(abi.GROUP).toMatchObject(GROUP_LAYOUT);
  expect(abi.NIC).toMatchObject(NIC_LAYOUT);
  expect(abi.LANE).toEqual(lanes.LANE_LAYOUT);
  expect(abi.LANE_FULL.outOfRoom).toBe(lanes.OUT_OF_ROOM);
  expect(abi.QUEUE).toEqual(lanes.QUEUE_LAYOUT);
  expect(abi.LANE_STATE).toEqual(lanes.LANE_STATE);
  expect([stamp.LANES, stamp.LEAD_SPILLED, stamp.LEAD_NOTICE]).toEqual([abi.LANES, abi.LEAD.spilled, abi.LEAD.notice]);
  expect([lanes.FRAME_COST, lanes.HOLD_BUCKETS]).toEqual([abi.FRAME_COST, abi.HOLD_BUCKETS]);
  const { shift, marker, groupShift, filler } = abi.MARKER;
  expect([laneMarker(200, 11, false), laneMarker(255, 15, true)]).toEqual([(marker << shift) | (200 << groupShift) | 11, (marker << shift) | (255 << groupShift) | filler | 15]);
});

test('a stamp packs and unpacks as the kernel has it', () => {
  for (const cls of [1, 2, 3] as const) {
    for (const nic of [1, 2, 0x7ff, 0xfff]) {
      for (const lead of [0, 1, 15]) {
        for (const colour of [0, 1, 0x2000, 0x3fff, 0xffff_ffff]) {
          const packed = stamp.packStamp(cls, nic, lead, colour);
          expect(packed).toBe(abi.stampPack(cls, nic, lead, colour));
          const signed = packed | 0;
          expect([stamp.stampClass(signed), stamp.stampNic(signed), stamp.stampLead(signed), stamp.stampColour(signed)]).toEqual([
            cls, nic, lead, colour & 0x3fff,
          ]);
        }
      }
    }
  }
});

test('a colour is found again from 14 bits anywhere on the circle', () => {
  for (const near of [0, 1, 0x1fff, 0x2000, 0x3fff, 0x4000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    for (const away of [-8191, -1025, -1, 0, 1, 1024, 8191]) {
      const colour = (near + away) >>> 0;
      expect(stamp.nearColour(colour & 0x3fff, near | 0) >>> 0).toBe(colour);
      expect(abi.colourNear(colour, near)).toBe(colour);
    }
  }
});
