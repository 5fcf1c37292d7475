/**
 * The stamp of a frame as the hold loop reads it: a mirror of the few lines of the kernel's ABI
 * header that user space needs per frame. proxy/ imports nothing of classifier/, so the layout
 * stands here again; test/unit/ring-stamp.test.ts proves it equal to the header.
 *
 *   | class 2 | nic 12 | lead 4 | colour 14 |
 *
 * A colour has 32 bits and the stamp carries 14 of them: `nearColour` finds the one next to a
 * colour that is known to be near. At most 1024 epochs are in flight, far below half the circle.
 */
export const CLASS_HELD = 1;
export const CLASS_EARLY = 2;
export const CLASS_LATE = 3;

export const NICS_MAX = 4096;
export const RESIDUES = 64;
export const COLOUR_MASK = 0x3fff;
/** Leads of a held frame: it came out of a lane; it is none, but the word that a lane's first one has come. */
export const LEAD_SPILLED = 2;
export const LEAD_NOTICE = 4;
export const LANES = 16;
/** Highest lead a late frame's stamp can say. */
export const LEAD_MAX = 15;

export const stampClass = (stamp: number): number => stamp >>> 30;
export const stampNic = (stamp: number): number => (stamp >>> 18) & 0xfff;
export const stampLead = (stamp: number): number => (stamp >>> 14) & 0xf;
export const stampColour = (stamp: number): number => stamp & COLOUR_MASK;

export const packStamp = (cls: number, nic: number, lead: number, colour: number): number =>
  ((cls << 30) | (nic << 18) | (lead << 14) | (colour & COLOUR_MASK)) >>> 0;

/** The colour (int32) with these 14 low bits that is nearest to `near`. */
export const nearColour = (low14: number, near: number): number => (near + (((low14 - near) << 18) >> 18)) | 0;
