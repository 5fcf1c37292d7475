/**
 * The eye: what a group's guests do, by QEMU's own word and clock, past the engine.
 *
 *   side 0   RESUME … STOP ─ RESUME … STOP ─ RESUME … (killed)
 *   side 1                                            └─ RESUME       kill to running: the last guest's
 *                   └─ a group stop: first STOP to last RESUME
 *
 * Each guest has a second QMP server for this. A side that is not there yet is looked for until
 * `close()`: its socket appears when the engine starts it.
 */
import { existsSync } from 'node:fs';
import { Qmp, QmpClosed } from '../../checkpoint-hooks/engines/qemu/qmp.ts';
import type { SideIndex } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { sleep } from '../bed/commands.ts';
import type { VmBed } from './bed.ts';

const LOOK_MS = 20;

export interface Sighting {
  readonly guest: string;
  readonly side: SideIndex;
  readonly what: 'STOP' | 'RESUME';
  readonly atUs: number;
}

export class Eye {
  readonly sightings: Sighting[] = [];
  /** Called with each sighting at once. */
  onSighting: ((sighting: Sighting) => void) | undefined;
  readonly #bed: VmBed;
  readonly #open = new Map<string, Qmp>();
  readonly #watching: Promise<void>[] = [];
  #closed = false;

  constructor(bed: VmBed, sides: readonly SideIndex[] = [0, 1]) {
    this.#bed = bed;
    for (const { name } of bed.group.guests) for (const side of sides) this.#watching.push(this.#watch(name, side));
  }

  /** Whether every guest of that side is seen. */
  sees(side: SideIndex): boolean {
    return this.#bed.group.guests.every(({ name }) => this.#open.get(`${name}${side}`)?.isOpen === true);
  }

  /** Times the whole group stood still, milliseconds: first STOP to last RESUME of a side's guests. */
  groupStopsMs(side: SideIndex): number[] {
    const stops: number[] = [];
    const still = new Set<string>();
    let fromUs = 0;
    for (const { guest, what, atUs } of this.sightings.filter((each) => each.side === side).sort((a, b) => a.atUs - b.atUs)) {
      if (what === 'STOP') {
        if (still.size === 0) fromUs = atUs;
        still.add(guest);
      } else if (still.delete(guest) && still.size === 0) {
        stops.push((atUs - fromUs) / 1e3);
      }
    }
    return stops;
  }

  /** When the last guest of `side` began to run after `afterUs`; undefined while one does not. */
  allRunningUs(side: SideIndex, afterUs: number): number | undefined {
    const first = this.#bed.group.guests.map(
      ({ name }) => this.sightings.find((s) => s.guest === name && s.side === side && s.what === 'RESUME' && s.atUs > afterUs)?.atUs,
    );
    return first.includes(undefined) ? undefined : Math.max(...first.map((us) => us ?? 0));
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const qmp of this.#open.values()) qmp.close();
    await Promise.all(this.#watching);
  }

  async #watch(guest: string, side: SideIndex): Promise<void> {
    const path = this.#bed.eye(guest, side);
    while (!this.#closed) {
      const qmp = existsSync(path) ? await Qmp.connect(path).catch(onlyClosed) : undefined;
      if (qmp !== undefined) {
        this.#open.set(`${guest}${side}`, qmp);
        qmp.onEvent(({ event, atUs }) => {
          if (event !== 'STOP' && event !== 'RESUME') return;
          const sighting: Sighting = { guest, side, what: event, atUs };
          this.sightings.push(sighting);
          this.onSighting?.(sighting);
        });
        if (this.#closed) qmp.close();
        await qmp.closed;
      }
      await sleep(LOOK_MS);
    }
  }
}

function onlyClosed(error: unknown): undefined {
  if (error instanceof QmpClosed) return undefined;
  throw error;
}
