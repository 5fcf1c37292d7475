/**
 * Checkpoints and failovers by hand, for the controls: what the engine refuses to do, somebody has
 * to do, or nobody sees that it would break.
 *
 *   checkpoint()   all stop ─ device state and RAM copied ─ cut ─ all go on ─ commit      an Image each
 *   start()        standbys of these guests, waiting
 *   restore()      their RAM written, their state given, all run: of any images, chosen freely
 *   takeOver()     Sluice goes on from an epoch, members at their standbys' ports
 *
 * Slow (the RAM is copied whole while the group stands) and without any of the engine's checks:
 * that is its purpose. Limits: one failover, from side 0 to side 1, of a group that runs.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { memberAt, type GuestSpec } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { Machine } from '../../checkpoint-hooks/engines/qemu/machine.ts';
import { launchStandby } from '../../checkpoint-hooks/engines/qemu/standby.ts';
import type { VmBed } from './bed.ts';

/** One guest at one checkpoint. */
export interface Image {
  readonly ram: Buffer;
  readonly state: Uint8Array;
}
/** All guests, by name, and the epoch that the checkpoint sealed; 0 where nothing is protected. */
export interface Checkpoint {
  readonly epoch: number;
  readonly images: ReadonlyMap<string, Image>;
  /** From the first guest's stop until all run again. */
  readonly stopMs: number;
}

export class Hand {
  readonly client: SluiceClient;
  generation = 0;
  open = 0;
  readonly #bed: VmBed;
  readonly #machines = new Map<string, Machine>();
  readonly #standbys = new Map<string, Machine>();

  private constructor(bed: VmBed) {
    this.#bed = bed;
    this.client = new SluiceClient({ socket: bed.bed.daemon().socket });
  }

  static async attach(bed: VmBed): Promise<Hand> {
    const hand = new Hand(bed);
    for (const guest of bed.group.guests) {
      const machine = await Machine.attach(guest.sides[0]);
      await machine.prepareSave();
      hand.#machines.set(guest.name, machine);
    }
    return hand;
  }

  async protect(): Promise<void> {
    const { group, guests } = this.#bed.group;
    await this.client.apply(group, { group, members: guests.map((guest) => memberAt(guest, 0)) });
    const { generation, open } = await this.client.protect(group);
    [this.generation, this.open] = [generation, open];
  }

  async checkpoint(): Promise<Checkpoint> {
    const { group, guests } = this.#bed.group;
    const machines = [...this.#machines.values()];
    const beganMs = performance.now();
    await Promise.all(machines.map((machine) => machine.stop()));
    const saved = await Promise.all(guests.map(async (guest) => [guest.name, await this.#save(guest)] as const));
    const epoch = this.open;
    if (epoch > 0) this.open = (await this.client.cut(group, { generation: this.generation, epoch })).open;
    await Promise.all(machines.map((machine) => machine.cont()));
    const stopMs = performance.now() - beganMs;
    if (epoch > 0) await this.client.commit(group, { generation: this.generation, epoch });
    return { epoch, images: new Map(saved), stopMs };
  }

  async start(names: readonly string[]): Promise<void> {
    for (const name of names) this.#standbys.set(name, await launchStandby(this.#bed.guest(name).sides[1]));
  }

  /** Every started standby gets the image that is named for it; then all run. */
  async restore(images: ReadonlyMap<string, Image>): Promise<void> {
    for (const [name, standby] of this.#standbys) {
      const image = images.get(name);
      if (image === undefined) throw new Error(`no image of ${name}`);
      writeWhole(this.#bed.guest(name).sides[1].ram, image.ram);
      await standby.restoreState(image.state);
    }
    await Promise.all([...this.#standbys.values()].map((standby) => standby.cont()));
  }

  /** Takes over, and moves these members to their standbys' ports, one after the other. */
  async takeOver(epoch: number, names: readonly string[]): Promise<void> {
    const { group } = this.#bed.group;
    this.generation += 1;
    this.open = (await this.client.takeover(group, { generation: this.generation, epoch })).open;
    for (const name of names) {
      await this.client.leave(group, name, 'discard');
      const { nics } = memberAt(this.#bed.guest(name), 1);
      if (nics !== undefined) await this.client.join(group, name, { nics });
    }
  }

  /** The epochs go on without checkpoints, so that what is held leaves. */
  async cutAndCommit(): Promise<void> {
    const { group } = this.#bed.group;
    const epoch = this.open;
    this.open = (await this.client.cut(group, { generation: this.generation, epoch })).open;
    await this.client.commit(group, { generation: this.generation, epoch });
  }

  async close(): Promise<void> {
    for (const machine of [...this.#machines.values(), ...this.#standbys.values()]) machine.close();
    await this.client.close();
  }

  async #save({ name, sides }: GuestSpec): Promise<Image> {
    const machine = this.#machines.get(name);
    if (machine === undefined) throw new Error(`${name} is not attached`);
    const state = await machine.saveState();
    return { state, ram: readFileSync(sides[0].ram) };
  }
}

/** Over the file as it is: the standby has it mapped. */
function writeWhole(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at);
  } finally {
    closeSync(fd);
  }
}
