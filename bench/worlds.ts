/**
 * The worlds a scenario compares: a plain bridge, one group, every member its own group (per-VM
 * buffering: what Remus-style systems do). All of them are one bed after the other in one state:
 *
 *   plain ─► daemon starts, protects ─► group ─► unprotects, the group goes and with it its pins ─► plain …
 *
 * The daemon stays, as it does where it works: without a group nothing of it is in the kernel, and one that was
 * just started spends a good part of two cores on compiling itself, so it has some thousand epochs behind it
 * before anything is measured. All in one bed, because two beds of the same making differ by more than what is measured (which was made first,
 * whose pages lie where: 20 % at 20 Gbit/s). A bed is made when its first lap needs it and stays
 * until the scenario ends. The portable plane has a bed of its own.
 *
 *   lap ─► the bed in the variant's state ─► engines run at the variant's cadence ─► job ─► engines stop, all leaves
 *
 * Per-VM engines have clocks of their own: their phases are spread evenly over the interval, so a
 * chain of hops waits half an interval a hop on average, neither the best nor the worst case.
 */
import { Bed, type BedOptions, type Plane } from './bed/bed.ts';
import { runIn, sleep } from './bed/commands.ts';
import { Engine, type Cadence } from './bed/engine.ts';
import { WireApi } from './bed/wire.ts';

/** Cut and committed all the time: a frame waits for the ring's block timer and the next call. */
export const AT_ONCE: Cadence = { intervalMs: 1, commitDelayMs: 0 };
/** Epochs of this length, each committed 5 ms after its cut, as an engine with VMs does. */
export const epochs = (intervalMs: number): Cadence => ({ intervalMs, commitDelayMs: 5 });

export interface World {
  readonly protect: 'none' | 'group' | 'per-VM';
  /** The daemon's data plane; ebpf unless told. */
  readonly plane?: Plane;
  /** undefined: protected, and no command comes during the lap. */
  readonly cadence?: Cadence;
}

interface Protection {
  readonly engines: readonly Engine[];
  /** The engines' connections. */
  readonly calls: readonly WireApi[];
}
const NO_PROTECTION: Protection = { engines: [], calls: [] };
const WARM_UP_EPOCHS = 3000;

export interface Place extends Protection {
  readonly bed: Bed;
}

export interface WorldsOptions {
  readonly bed: BedOptions;
  /** Largest TCP window of every end, MB; the system's own unless told. */
  readonly windowMb?: number;
  /** More keys of the group file. */
  readonly group?: object;
}

export class Worlds {
  readonly #options: WorldsOptions;
  readonly #beds = new Map<Plane, { readonly bed: Bed; protect: World['protect']; protection: Protection }>();

  constructor(options: WorldsOptions) {
    this.#options = options;
  }

  /** The bed in the world's state, with nothing running. */
  async place({ protect, plane = 'ebpf' }: World): Promise<Place> {
    const one = this.#beds.get(plane) ?? (await this.#make(plane));
    if (one.protect !== protect) {
      await expose(one.bed, one.protection);
      [one.protect, one.protection] = ['none', NO_PROTECTION];
      if (protect !== 'none') [one.protection, one.protect] = [await this.#protect(one.bed, protect), protect];
    }
    return { bed: one.bed, ...one.protection };
  }

  /** Runs `job` in the variant's world. @throws what ended an engine. */
  async run<T>(world: World, job: (bed: Bed) => Promise<T>): Promise<T> {
    const place = await this.place(world);
    if (world.cadence === undefined) return job(place.bed);
    for (const [i, engine] of place.engines.entries()) {
      if (i > 0) await sleep(world.cadence.intervalMs / place.engines.length);
      engine.run(world.cadence);
    }
    try {
      return await job(place.bed);
    } finally {
      for (const engine of place.engines) await engine.stop(engine.failure === undefined);
      const failure = place.engines.find((engine) => engine.failure !== undefined)?.failure;
      if (failure !== undefined) throw failure;
    }
  }

  async close(): Promise<void> {
    for (const { bed, protection } of this.#beds.values()) {
      for (const api of protection.calls) api.close();
      await bed.close();
    }
    this.#beds.clear();
  }

  async #make(plane: Plane): Promise<{ bed: Bed; protect: World['protect']; protection: Protection }> {
    const bed = await Bed.create({ ...this.#options.bed, plane });
    const one = { bed, protect: 'none' as const, protection: NO_PROTECTION };
    this.#beds.set(plane, one);
    await setWindow(bed, this.#options.windowMb);
    return one;
  }

  async #protect(bed: Bed, protect: 'group' | 'per-VM'): Promise<Protection> {
    const daemon = bed.daemon();
    const isFresh = !daemon.running;
    if (isFresh) await daemon.start('live');
    const engines: Engine[] = [];
    const calls: WireApi[] = [];
    const parts = protect === 'group' ? [bed.members] : bed.members.map((member) => [member]);
    for (const [i, members] of parts.entries()) {
      const api = await WireApi.open(daemon.socket);
      calls.push(api);
      const engine = new Engine(api, `g${i}`);
      await engine.protect(bed.groupFile(engine.group, { ...this.#options.group, members: members.map(({ name, port, mac }) => ({ name, port, mac })) }));
      engines.push(engine);
    }
    for (const engine of isFresh ? engines.slice(0, 1) : []) {
      for (let i = 0; i < WARM_UP_EPOCHS; i++) {
        await engine.cut();
        await engine.commit();
      }
    }
    return { engines, calls };
  }
}

/** Protection ends, and what the daemon has in the kernel goes with it: the bridge is as it was. */
async function expose(bed: Bed, { engines, calls }: Protection): Promise<void> {
  for (const engine of engines) {
    await engine.unprotect('discard');
    await bed.daemon().api.must('DELETE', `/v1/groups/${engine.group}`);
  }
  for (const api of calls) api.close();
}

export async function setWindow(bed: Bed, megabytes: number | undefined): Promise<void> {
  if (megabytes === undefined) return;
  const most = megabytes * 1024 * 1024;
  for (const { namespace } of [...bed.members, bed.outsider]) {
    if (namespace === undefined) continue;
    await runIn(namespace, 'sysctl', ['-qw', `net.ipv4.tcp_wmem=4096 16384 ${most}`, `net.ipv4.tcp_rmem=4096 131072 ${most}`]);
  }
}
