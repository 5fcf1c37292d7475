/**
 * The beds a scenario compares, side by side: a plain bridge, one group, every member its own
 * group (per-VM buffering: what Remus-style systems do). A bed is made when its first lap needs it
 * and stays until the scenario ends.
 *
 *   lap ─► the variant's bed ─► engines run at the variant's cadence ─► job ─► engines stop, all leaves
 *
 * Per-VM engines have clocks of their own: their phases are spread evenly over the interval, so a
 * chain of hops waits half an interval a hop on average, neither the best nor the worst case.
 */
import { Bed, type BedOptions, type Plane } from './bed/bed.ts';
import { runIn, sleep } from './bed/commands.ts';
import type { Daemon } from './bed/daemon.ts';
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

export interface Place {
  readonly bed: Bed;
  readonly daemon: Daemon | undefined;
  readonly engines: readonly Engine[];
  /** The engines' connections. */
  readonly calls: readonly WireApi[];
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
  readonly #places = new Map<string, Place>();

  constructor(options: WorldsOptions) {
    this.#options = options;
  }

  /** The variant's bed with nothing running. */
  async place({ protect, plane = 'ebpf' }: World): Promise<Place> {
    const key = `${protect} ${plane}`;
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    const bed = await Bed.create({ ...this.#options.bed, plane });
    try {
      await setWindow(bed, this.#options.windowMb);
      const place = protect === 'none' ? { bed, daemon: undefined, engines: [], calls: [] } : await this.#protect(bed, protect);
      this.#places.set(key, place);
      return place;
    } catch (error) {
      await bed.close();
      throw error;
    }
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
    for (const { bed, calls } of this.#places.values()) {
      for (const api of calls) api.close();
      await bed.close();
    }
    this.#places.clear();
  }

  async #protect(bed: Bed, protect: 'group' | 'per-VM'): Promise<Place> {
    const daemon = bed.daemon();
    await daemon.start('live');
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
    return { bed, daemon, engines, calls };
  }
}

export async function setWindow(bed: Bed, megabytes: number | undefined): Promise<void> {
  if (megabytes === undefined) return;
  const most = megabytes * 1024 * 1024;
  for (const { namespace } of [...bed.members, bed.outsider]) {
    if (namespace === undefined) continue;
    await runIn(namespace, 'sysctl', ['-qw', `net.ipv4.tcp_wmem=4096 16384 ${most}`, `net.ipv4.tcp_rmem=4096 131072 ${most}`]);
  }
}
