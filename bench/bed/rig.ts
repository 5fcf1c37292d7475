/**
 * Everything an attack needs, wired: bed, daemon, oracle, engine, and traffic inside and outside.
 *
 *   create ─► protect ─► start() ─► …the attack… ─► finish() ─► line()
 *
 * `finish` stops the traffic, cuts and commits what is left and waits until nothing more comes,
 * so that afterwards every frame is seen, discarded or lost. `plain` leaves the daemon out: the
 * control that must show leaks.
 */
import { Bed, type BedOptions } from './bed.ts';
import { sleep } from './commands.ts';
import type { Daemon, DaemonOptions } from './daemon.ts';
import { Engine, type Cadence } from './engine.ts';
import { nowUs } from './libc.ts';
import { Oracle } from './oracle.ts';
import { Traffic } from './traffic.ts';

export interface RigOptions extends Partial<BedOptions> {
  readonly daemon?: Partial<Pick<DaemonOptions, 'attach' | 'lanes' | 'state' | 'cpu'>>;
  /** More keys of the group file. */
  readonly group?: object;
  readonly plain?: boolean;
  /** The daemon runs and knows the group, but does not protect it: the other control. */
  readonly unprotected?: boolean;
  /** Frames a millisecond of each of the four flows. */
  readonly perTick?: number;
  readonly keepSeen?: boolean;
}

export const CADENCE: Cadence = { intervalMs: 10, commitDelayMs: 12 };
const QUIET_MS = 60;

export class Rig {
  readonly bed: Bed;
  readonly daemon: Daemon;
  readonly oracle: Oracle;
  readonly traffic: Traffic;
  readonly #options: RigOptions;
  #engine: Engine | undefined;

  private constructor(bed: Bed, options: RigOptions) {
    this.bed = bed;
    this.#options = options;
    this.daemon = bed.daemon(options.daemon);
    this.oracle = new Oracle({ keepSeen: options.keepSeen ?? true });
    this.traffic = new Traffic(bed, this.oracle);
    this.#flows(options.perTick ?? 2);
  }

  static async create(options: RigOptions = {}): Promise<Rig> {
    const bed = await Bed.create({ members: ['tap', 'tap'], addresses: false, ...options });
    try {
      const rig = new Rig(bed, options);
      if (options.plain !== true) await rig.#startDaemon();
      return rig;
    } catch (error) {
      await bed.close();
      throw error;
    }
  }

  get engine(): Engine {
    if (this.#engine === undefined) throw new Error('the rig has no engine: nothing is protected');
    return this.#engine;
  }

  async #startDaemon(): Promise<void> {
    await this.daemon.start('live');
    const groupFile = this.bed.groupFile('g', this.#options.group);
    if (this.#options.unprotected === true) {
      await this.daemon.api.must('PUT', '/v1/groups/g', groupFile);
      return;
    }
    this.#engine = new Engine(this.daemon.api, 'g', this.oracle);
    await this.#engine.protect(groupFile);
  }

  start(cadence: Cadence = CADENCE): void {
    this.traffic.run();
    this.engine.run(cadence);
  }

  /** The daemon again, after its end; the engine learns its state and goes on. */
  async restart(cadence: Cadence | undefined = CADENCE): Promise<void> {
    await this.engine.stop();
    await this.daemon.start();
    await this.restartEngine();
    if (cadence !== undefined) this.engine.run(cadence);
  }

  /** A new engine on the daemon as it is; it does not run yet. */
  async restartEngine(): Promise<void> {
    this.#engine = new Engine(this.daemon.api, 'g', this.oracle);
    await this.#engine.sync();
  }

  /** Ends the traffic; everything held leaves. Throws what stopped the engine, if anything did. */
  async finish(): Promise<void> {
    this.traffic.stop();
    if (this.#engine !== undefined) {
      await this.#engine.stop(this.#engine.failure === undefined);
      if (this.#engine.failure !== undefined) throw this.#engine.failure;
    }
    await this.settle();
  }

  /** Reads until nothing has come for a while. */
  async settle(): Promise<void> {
    let last = -1;
    for (let seen = this.#seen(); seen !== last; seen = this.#seen()) {
      last = seen;
      const endUs = nowUs() + QUIET_MS * 1e3;
      while (nowUs() < endUs) {
        this.traffic.drain();
        await sleep(2);
      }
    }
  }

  /** Runs on for a while with traffic and engine as they are. */
  pause(ms: number): Promise<void> {
    return sleep(ms);
  }

  /** One line of the attack table. */
  line(name: string): string {
    const c = this.oracle.count();
    const intra = this.traffic.flows('intra');
    const inside = `${sum(intra.map((f) => f.seen))}/${sum(intra.map((f) => f.sent))}`;
    return `${name.padEnd(46)} sent ${pad(c.sent)} released ${pad(c.seen)} held ${pad(c.held)} lost ${pad(c.lost)}`
      + ` intra ${inside.padStart(13)} strays ${String(c.strays).padStart(4)} leaked ${this.leaked()}`;
  }

  leaked(): number {
    return this.oracle.count().leaked;
  }

  close(): Promise<void> {
    this.traffic.stop();
    return (this.#engine?.stop() ?? Promise.resolve()).finally(() => this.bed.close());
  }

  #seen(): number {
    return this.oracle.count().seen + sum(this.traffic.flows('intra').map((flow) => flow.seen));
  }

  /** Each of the first two members to the other and to the outside. */
  #flows(perTick: number): void {
    const ends = [0, 1].map((i) => {
      if (this.bed.member(i).namespace === undefined) return () => this.bed.tap(i);
      const end = this.bed.end(i);
      return () => end;
    });
    ends.forEach((end, i) => {
      this.traffic.flow(i, this.bed.outsider, end, perTick, 60 + 40 * i);
      this.traffic.flow(i, this.bed.member(1 - i), end, perTick, 300);
      this.traffic.listen(end);
    });
  }
}

const pad = (n: number): string => String(n).padStart(7);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
