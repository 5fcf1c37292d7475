/**
 * The store's word that a takeover began: which generations go on, or tried to, from which checkpoint.
 * Written before Sluice is asked, while VMs stand still: so it is one write into a place that is there
 * already and one sync of its data, instead of a new file, a rename and two commits of the file system.
 *
 *     0                 4096              8192
 *     slot 0            slot 1                    crc32 of the rest, 8 hex digits, a space, JSON, spaces
 *
 * Slots take turns, each in a block of its own, because file systems and disks write whole blocks: a
 * write that was torn leaves the other one, and then Sluice was never asked. A slot
 * of zeros has never been written. Two that are neither whole nor empty are damage.
 *
 * Engines before the slots wrote `takeover.json`: one that is found is written into a slot and then
 * taken away. Without it the engine of an unfinished takeover, upgraded, would not know its checkpoint.
 */
import { closeSync, existsSync, fdatasyncSync, fstatSync, fsyncSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { Type } from '../../../proxy/doors/typebox.ts';
import { Generation, checker, problemText } from '../../../proxy/api/contract.ts';
import { Damaged } from './part.ts';

const SLOT_BYTES = 4096;
const SLOTS = 2;

const Intent = Type.Object({
  /** Counts the writes: the newest is meant. */
  serial: Type.Integer({ minimum: 1 }),
  /** All from the first to this one began from that checkpoint, or were to. */
  first: Generation,
  generation: Generation,
  sequence: Type.Integer({ minimum: 1 }),
});
export type Intent = Type.Static<typeof Intent>;
const check = checker(Intent);

/** `takeover.json`; the oldest have one generation and no first. */
const Former = Type.Object({ first: Type.Optional(Generation), generation: Generation, sequence: Type.Integer({ minimum: 1 }) });
const checkFormer = checker(Former);

export class IntentFile {
  private readonly fd: number;
  private newest: Intent | undefined;

  private constructor(fd: number, newest: Intent | undefined) {
    this.fd = fd;
    this.newest = newest;
  }

  /** Made where it is not there, on the disk when this returns. Throws Damaged. */
  static open(path: string): IntentFile {
    const fd = openSync(path, 'a+', 0o600);
    closeSync(fd);
    const file = openSync(path, 'r+');
    try {
      if (fstatSync(file).size < SLOT_BYTES * SLOTS) {
        writeSync(file, Buffer.alloc(SLOT_BYTES * SLOTS), 0, SLOT_BYTES * SLOTS, 0);
        fsyncSync(file);
        syncNow(dirname(path));
      }
      const intent = new IntentFile(file, read(file, path));
      intent.adopt(`${path}.json`);
      return intent;
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  get value(): Intent | undefined {
    return this.newest;
  }

  /** On the disk when it returns. Blocking: nothing runs meanwhile, and the thread pool takes ten times as long. */
  write(what: Omit<Intent, 'serial'>): void {
    const intent = { serial: (this.newest?.serial ?? 0) + 1, ...what };
    const text = JSON.stringify(intent).padEnd(SLOT_BYTES - 9);
    const slot = Buffer.from(`${crc32(text).toString(16).padStart(8, '0')} ${text}`);
    if (slot.length !== SLOT_BYTES) throw new RangeError('an intent longer than its slot');
    if (writeSync(this.fd, slot, 0, SLOT_BYTES, (intent.serial % SLOTS) * SLOT_BYTES) !== SLOT_BYTES) throw new Error('the disk did not take the intent of a takeover: is it full?');
    fdatasyncSync(this.fd);
    this.newest = intent;
  }

  close(): void {
    closeSync(this.fd);
  }

  /** It is gone only when a slot is on the disk: a crash in between does the same again. */
  private adopt(path: string): void {
    if (!existsSync(path)) return;
    const { first, generation, sequence } = readFormer(path);
    if (generation > (this.newest?.generation ?? 0)) this.write({ first: first ?? generation, generation, sequence });
    rmSync(path);
  }
}

function readFormer(path: string): Type.Static<typeof Former> {
  let found: unknown;
  try {
    found = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Damaged(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = checkFormer(found);
  if (!parsed.ok) throw new Damaged(`${path}: ${problemText(parsed.problem)}`);
  return parsed.value;
}

function read(fd: number, path: string): Intent | undefined {
  const slots = Array.from({ length: SLOTS }, (_, i) => {
    const slot = Buffer.alloc(SLOT_BYTES);
    readSync(fd, slot, 0, SLOT_BYTES, i * SLOT_BYTES);
    return slot;
  });
  const whole = slots.map(intentOf).filter((intent) => intent !== undefined);
  if (whole.length === 0 && slots.every((slot) => slot.some((byte) => byte !== 0))) throw new Damaged(`${path} has no whole record`);
  return whole.sort((a, b) => a.serial - b.serial).at(-1);
}

function intentOf(slot: Buffer): Intent | undefined {
  const text = slot.toString('latin1', 9);
  if (slot.toString('latin1', 0, 8) !== crc32(text).toString(16).padStart(8, '0')) return undefined;
  const parsed = check(JSON.parse(text) as unknown);
  return parsed.ok ? parsed.value : undefined;
}

function syncNow(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
