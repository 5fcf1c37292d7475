/**
 * The journal's bytes: lines over a ground of zeros. Pure.
 *
 *    crc32   seq            synced         JSON (no newline, no NUL in it)
 *    8 hex ␣ 12 hex       ␣ 12 hex       ␣ {…} \n      one line a record, seq counts from 0
 *    └ of all that follows it on the line
 *
 * Line 0 is the header; its `synced` is the last line of the snapshot the file began with. Every
 * later line says in `synced` up to which line the file was on disk when it was written. That is
 * what tells a torn tail from damage:
 *
 *    torn    the first bad line was never synced, and has a hole (a zero, or the end) where the
 *            missing sector would be: cut off, it was never answered
 *    damage  a later line says that it was on disk; or it is whole to its newline and yet wrong:
 *            refused, for a lost commit would let a rollback contradict what the world has seen
 *
 * A damaged very last line whose newline is gone looks torn. The group's spec is written only
 * where it changed; other lines leave it out.
 */
import { crc32 } from 'node:zlib';
import type { GroupSpec, GroupState } from '../core/types.ts';
import type { GroupId, JournalRecord } from '../ports.ts';

export const FORMAT = 'sluice-journal-1';

export type Entry =
  | { readonly format: typeof FORMAT }
  | { readonly id: GroupId; readonly state: Omit<GroupState, 'spec'> & { readonly spec?: undefined }; readonly spec?: GroupSpec }
  | { readonly gone: string };

/** Where and why a journal cannot be believed. */
export class JournalDamage extends Error {
  override readonly name = 'JournalDamage';
}

const HEX = 16;
const counter = (n: number): string => n.toString(HEX).padStart(12, '0');

/** One line, with its newline; UTF-8 where it is written. */
export function encode(seq: number, synced: number, entry: Entry): string {
  const body = `${counter(seq)} ${counter(synced)} ${JSON.stringify(entry)}`;
  return `${crc32(body).toString(HEX).padStart(8, '0')} ${body}\n`;
}

interface Line {
  readonly seq: number;
  readonly synced: number;
  readonly entry: Entry;
}

const LINE = /^([0-9a-f]{8}) (([0-9a-f]{12}) ([0-9a-f]{12}) (\{.*\}))$/s;

/** undefined: not a line of ours, or not as it was written. */
function decode(bytes: Buffer): Line | undefined {
  const match = LINE.exec(bytes.toString('utf8'));
  if (match === null) return undefined;
  const [, sum = '', body = '', seq = '', synced = '', json = ''] = match;
  if (crc32(body) !== Number.parseInt(sum, HEX)) return undefined;
  return { seq: Number.parseInt(seq, HEX), synced: Number.parseInt(synced, HEX), entry: JSON.parse(json) as Entry };
}

interface Span {
  readonly line: Line | undefined;
  /** It has its newline and no hole before it. */
  readonly whole: boolean;
  /** First byte after it. */
  readonly end: number;
}

function spanAt(bytes: Buffer, at: number): Span {
  const newline = bytes.indexOf(0x0a, at);
  const stop = newline < 0 ? bytes.length : newline;
  const hole = bytes.subarray(at, stop).indexOf(0);
  const whole = newline >= 0 && hole < 0;
  const end = hole < 0 ? Math.min(stop + 1, bytes.length) : at + hole + 1;
  return { line: whole ? decode(bytes.subarray(at, newline)) : undefined, whole, end };
}

/** The highest line that any readable line after `at` knows to have been on disk; -1 = none. */
function syncedAfter(bytes: Buffer, at: number): number {
  let synced = -1;
  for (let pos = at; pos < bytes.length; ) {
    if (bytes[pos] === 0) {
      pos += 1;
      continue;
    }
    const { line, end } = spanAt(bytes, pos);
    if (line !== undefined) synced = Math.max(synced, line.synced);
    pos = end;
  }
  return synced;
}

export interface Parsed {
  readonly records: readonly JournalRecord[];
  /** Bytes of a tail that was cut off; 0 = it ended cleanly. */
  readonly tornBytes: number;
}

/** Throws JournalDamage. */
export function parse(bytes: Buffer): Parsed {
  const groups = new Map<string, JournalRecord>();
  const specs = new Map<GroupId, GroupSpec>();
  let pos = 0;
  let seq = 0;
  let known = -1;
  for (; pos < bytes.length && bytes[pos] !== 0; seq += 1) {
    const { line, whole, end } = spanAt(bytes, pos);
    if (line === undefined && !whole) break;
    if (line?.seq !== seq) throw new JournalDamage(`line ${seq} at byte ${pos} is not as it was written`);
    take(line.entry, groups, specs, pos);
    known = Math.max(known, line.synced);
    pos = end;
  }
  const synced = Math.max(known, syncedAfter(bytes, pos));
  if (seq === 0 || synced >= seq) throw new JournalDamage(`line ${seq} at byte ${pos} was on disk and is not there any more`);
  const rest = bytes.subarray(pos);
  return { records: [...groups.values()], tornBytes: rest.length - trailingZeros(rest) };
}

function trailingZeros(bytes: Buffer): number {
  let at = bytes.length;
  while (at > 0 && bytes[at - 1] === 0) at -= 1;
  return bytes.length - at;
}

function take(entry: Entry, groups: Map<string, JournalRecord>, specs: Map<GroupId, GroupSpec>, pos: number): void {
  if ('format' in entry) {
    if (entry.format !== FORMAT || pos !== 0) throw new JournalDamage(`the journal has a format this version does not read at byte ${pos}`);
    return;
  }
  if (pos === 0) throw new JournalDamage('the journal has no header');
  if ('gone' in entry) {
    groups.delete(entry.gone);
    return;
  }
  if (entry.spec !== undefined) specs.set(entry.id, entry.spec);
  const spec = specs.get(entry.id);
  if (spec === undefined) throw new JournalDamage(`a record of group number ${entry.id} at byte ${pos} comes before its spec`);
  groups.set(spec.group, { id: entry.id, state: { ...entry.state, spec } });
}
