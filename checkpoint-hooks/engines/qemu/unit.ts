/**
 * One guest of the group as the engine has it: the side that runs, its RAM worker, the side that
 * waits.
 *
 *     machine   the side that runs          ram    its worker: shadow, base image, standby's RAM
 *     process   which process that is       base   name of its image in the store
 *     standby   the other one, or none
 *
 * A standby is `ready` when its RAM is the newest durable checkpoint: when a first copy has ended
 * and a delta was settled after it, or no capture was ahead of the store. It stays so, since every delta that
 * settles goes to it as well.
 */
import type { GuestSide, GuestSpec, SideIndex } from './guest.ts';
import { otherSide } from './guest.ts';
import { processOf } from './machine.ts';
import type { Machine } from './machine.ts';
import type { GuestRam } from './ram.ts';

export interface StandbySide {
  readonly machine: Machine;
  copied: boolean;
  ready: boolean;
}

export class Unit {
  readonly spec: GuestSpec;
  side: SideIndex;
  machine: Machine;
  process: string | undefined;
  ram: GuestRam;
  base: string;
  standby: StandbySide | undefined;
  /** Device state of the newest checkpoint that settled, and which that is. */
  settled: { readonly sequence: number; readonly state: Uint8Array } | undefined;

  constructor(spec: GuestSpec, side: SideIndex, machine: Machine, ram: GuestRam, base: string) {
    this.spec = spec;
    this.side = side;
    this.machine = machine;
    this.process = processOf(this.running);
    this.ram = ram;
    this.base = base;
  }

  get name(): string {
    return this.spec.name;
  }
  get running(): GuestSide {
    return this.spec.sides[this.side];
  }
  get waiting(): GuestSide {
    return this.spec.sides[otherSide(this.side)];
  }

  async close(): Promise<void> {
    this.machine.close();
    this.standby?.machine.close();
    await this.ram.close();
  }
}
