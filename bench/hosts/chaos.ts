/**
 * Chaos on three hosts: one run is one group, protected, with traffic all along, and one fault or
 * two at moments that a seed chooses; judged from outside (oracle.ts, traffic.ts).
 *
 *   passing   … epochs ─ fault ─ (second fault) ─ over ─ the epoch open then is committed ─ all is out
 *   deadly    … epochs ─ fault ─ the others take over ─ first frame outside ─ the host wakes, its old VMs
 *             speak ─ it is fenced ─ all is out
 *
 * The bed stays from run to run, the group does not: it is ended, deleted on every host, and made
 * anew with other homes. A frame of an earlier run that comes out later is an old one (traffic.ts).
 * Generations go on counting over the runs, so they wrap the wire's four bits.
 *
 * A fault is what must never be: a leak, an orphan, an old generation's frame, the kernel's own bound on
 * releases hit, a group that does not go on, a woken host that is not fenced. How soon it goes on is a
 * figure.
 */
import { ApiRefusal } from '../bed/api.ts';
import { Cluster } from '../bed/cluster.ts';
import { sleep, until } from '../bed/commands.ts';
import { nowUs } from '../bed/libc.ts';
import { Oracle } from '../bed/oracle.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import { Clocks, jumpingClocks } from './clocks.ts';
import { Cuts } from './cuts.ts';
import { HostsEngine } from './engine.ts';
import { DEADLY, PASSING, last, type Deadly, type DeadlyFault, type Passing, type Stage, type Undo } from './faults.ts';
import { GROUP, finish, groupFile, members, speakers, type Seat } from './story.ts';
import { HostsTraffic, type Life } from './traffic.ts';

export const HOSTS = 3;
const MEMBERS = 4;
/** Far beyond what it takes: a slow machine is no fault. */
const GOES_ON_MS = 60_000;
const FENCED_MS = 60_000;
const GHOSTS_MS = 400;
const WARM_EPOCHS = 3;

export interface Plan {
  readonly fault: Passing | Deadly;
  /** Strikes while the first one lasts, at another host. */
  readonly second?: Passing;
  readonly random: () => number;
}
export interface Outcome {
  readonly fault: string;
  readonly host: number;
  readonly epochs: number;
  readonly leaked: number;
  readonly orphans: number;
  readonly old: number;
  readonly again: number;
  readonly ghosts: number;
  readonly refused: number;
  /** From the end of the fault until the epoch that was open then is committed. */
  readonly backMs: number;
  /** Of a takeover: from its first word until all hosts are in the new generation, and until its first frame is outside. */
  readonly takeoverMs?: number;
  readonly firstOutsideMs?: number;
  /** Etcd's leader went with the host. */
  readonly isLeaderless?: boolean;
  readonly words: readonly string[];
}
interface Scene extends Stage {
  readonly oracle: Oracle;
  readonly traffic: HostsTraffic;
  readonly seats: readonly Seat[];
  readonly life: Life;
}

const seat = (member: number, host: number): Seat => ({ is: member * HOSTS, tap: member * HOSTS + host });
const isDeadly = (fault: Passing | Deadly): fault is Deadly => fault in DEADLY;

export class Arena {
  readonly cluster: Cluster;
  readonly #outside: PacketPort;
  readonly cuts: Cuts;
  readonly clocks: Clocks;
  #nextFlow = 0;

  private constructor(cluster: Cluster) {
    this.cluster = cluster;
    this.#outside = cluster.bed.outside();
    this.cuts = new Cuts(cluster.bed);
    this.clocks = new Clocks(cluster.bed);
  }

  /** Each member has a tap on each host: it may live on any. */
  static async create(electionMs?: number): Promise<Arena> {
    const taps = Array.from({ length: MEMBERS * HOSTS }, (_, i) => ({ kind: 'tap' as const, host: i % HOSTS }));
    return new Arena(await Cluster.create({ hosts: HOSTS, members: taps, ...(electionMs === undefined ? {} : { electionMs }) }, jumpingClocks));
  }
  close(): Promise<void> {
    return this.cluster.close();
  }

  /** One run, and the bed as it was before. Throws where it can't be: then the bed is of no use any more. */
  async run(plan: Plan): Promise<Outcome> {
    const scene = await this.begin(plan.random);
    const { engine, traffic, oracle } = scene;
    try {
      const host = Math.floor(plan.random() * HOSTS);
      const figures = isDeadly(plan.fault) ? await deadly(scene, DEADLY[plan.fault], host, plan.second) : await passing(scene, plan.fault, host, plan.second);
      const epochs = engine.committed;
      await finish(engine, traffic, oracle);
      const refused = await refusedBy(scene);
      await engine.forget();
      return { fault: plan.fault, host, epochs, ...judged(scene), refused, ...figures };
    } finally {
      traffic.stop();
      await engine.stop();
      this.#nextFlow = traffic.nextFlow;
    }
  }

  /** A group with the homes that chance gives, each host at least one, and its traffic. `seats`: those homes. */
  async begin(random: () => number, given?: readonly Seat[], options: { readonly isUnheld?: boolean } = {}): Promise<Scene> {
    const { cluster, cuts, clocks } = this;
    await until('etcd is whole', () => cluster.etcd.ctl(['endpoint', 'health']).then(() => true, () => false), GOES_ON_MS);
    this.#drain();
    const oracle = new Oracle();
    const engine = new HostsEngine(cluster, oracle, GROUP);
    const traffic = new HostsTraffic(oracle, this.#outside, cluster.bed.outsider.address, engine.bounds, { firstFlow: this.#nextFlow });
    const turn = Math.floor(random() * HOSTS);
    const seats = given ?? Array.from({ length: MEMBERS }, (_, i) => seat(i, i < HOSTS ? (i + turn) % HOSTS : Math.floor(random() * HOSTS)));
    const homes = speakers(cluster, seats);
    if (options.isUnheld === true) await engine.apply(groupFile(cluster, seats), homes);
    else await engine.protect(groupFile(cluster, seats), homes);
    const life = traffic.begin(engine.generation, homes);
    traffic.run();
    return { cluster, cuts, clocks, random, oracle, engine, traffic, seats, life };
  }

  /** The group is over and forgotten on every host. */
  async end({ engine, traffic }: Pick<Scene, 'engine' | 'traffic'>): Promise<void> {
    traffic.stop();
    await engine.stop();
    this.#nextFlow = traffic.nextFlow;
    await engine.forget();
  }

  /** What still lies in queues that nobody read is nobody's. */
  #drain(): void {
    const { bed } = this.cluster;
    for (const i of bed.members.keys()) bed.tap(i).drain(() => undefined);
    this.#outside.drain(() => undefined);
  }
}

async function warm({ engine, random }: Scene): Promise<void> {
  engine.run();
  await until('epochs are committed', () => engine.committed >= WARM_EPOCHS, GOES_ON_MS);
  await sleep(random() * 300);
}

/** Until the epoch that is open now is committed. */
async function goesOn(engine: HostsEngine): Promise<number> {
  const [beganUs, epoch] = [nowUs(), engine.open];
  await until('the group goes on', () => {
    if (engine.failure !== undefined) throw engine.failure;
    return engine.committed >= epoch;
  }, GOES_ON_MS);
  return (nowUs() - beganUs) / 1e3;
}

async function maybeSecond(stage: Stage, host: number, second: Passing | undefined): Promise<Undo> {
  if (second === undefined) return () => Promise.resolve();
  await sleep(stage.random() * 300);
  return PASSING[second].strike(stage, (host + 1 + Math.floor(stage.random() * 2)) % HOSTS);
}

async function passing(scene: Scene, name: Passing, host: number, second: Passing | undefined): Promise<{ backMs: number }> {
  await warm(scene);
  const undo = await PASSING[name].strike(scene, host);
  const undoSecond = await maybeSecond(scene, host, second);
  await last(PASSING[name], scene.random);
  await undoSecond();
  await undo();
  const backMs = await goesOn(scene.engine);
  await sleep(100);
  return { backMs };
}

async function deadly(scene: Scene, fault: DeadlyFault, host: number, second: Passing | undefined): Promise<Pick<Outcome, 'backMs' | 'takeoverMs' | 'firstOutsideMs' | 'isLeaderless'>> {
  const { cluster, engine, life } = scene;
  await warm(scene);
  const ledAt = await cluster.etcd.leader();
  const struckUs = nowUs();
  const undo = await fault.strike(scene, host);
  if (!fault.areVmsAlive) life.silent.add(host);
  const isLeaderless = ledAt === host && (fault.cutsLedger === true || !cluster.etcd.runs(host));
  const undoSecond = await maybeSecond(scene, host, second);
  await last(fault, scene.random);
  const saidUs = fault.areVmsAlive || second !== undefined ? nowUs() : struckUs;
  const firstUs = await takeOver(scene, host, () => (host + 1 + Math.floor(scene.random() * 2)) % HOSTS);
  const openMs = (firstUs.openUs - saidUs) / 1e3;
  await undoSecond();
  const backMs = await goesOn(engine);
  await undo();
  life.silent.delete(host);
  await until(`h${host + 1} is fenced`, async () => (await engine.state(host).catch(() => undefined))?.phase === 'fenced', FENCED_MS);
  const code = await engine.say(host, 'cut', { generation: life.generation, epoch: engine.open }).then(() => 'accepted', (error: unknown) => error instanceof ApiRefusal ? error.code : String(error));
  if (code !== 'fenced') throw new Error(`the old engine's cut was answered '${code}'`);
  await sleep(GHOSTS_MS);
  await goesOn(engine);
  return { backMs, takeoverMs: openMs, firstOutsideMs: (firstUs.outsideUs - saidUs) / 1e3, isLeaderless };
}

/** The living hosts' VMs stop, the dead one's go to them; the next generation begins. */
export async function takeOver({ cluster, engine, traffic, seats, life }: Scene, dead: number, homeOf: () => number): Promise<{ openUs: number; outsideUs: number; seats: readonly Seat[]; life: Life }> {
  for (let host = 0; host < HOSTS; host++) if (host !== dead) life.silent.add(host);
  const stopped = engine.stop();
  await cluster.daemon(dead).hangUp();
  await stopped;
  engine.failure = undefined;
  life.isGhost = true;
  const moved = seats.map(({ is, tap }) => tap % HOSTS === dead ? seat(is / HOSTS, homeOf()) : { is, tap });
  const homes = speakers(cluster, moved);
  const next = traffic.expect(engine.generation + 1, homes);
  engine.at = (step, host) => {
    if (step !== 'opened' || host === undefined) return;
    if (life.endedAt === undefined) traffic.end(life, engine.open - 1);
    traffic.arrive(next, host);
  };
  await engine.takeover(members(cluster, moved), homes);
  engine.at = () => undefined;
  const openUs = nowUs();
  next.silent.clear();
  engine.run();
  await until('the new generation is heard outside', () => traffic.firstOutsideUs.has(next.generation), GOES_ON_MS);
  return { openUs, outsideUs: traffic.firstOutsideUs.get(next.generation) ?? Number.NaN, seats: moved, life: next };
}

async function refusedBy({ engine }: Scene): Promise<number> {
  const states = await Promise.all(engine.hosts.map((host) => engine.state(host)));
  return states.reduce((sum, { dropped }) => sum + dropped.refused, 0);
}

export function judged({ oracle, traffic }: Pick<Scene, 'oracle' | 'traffic'>): Pick<Outcome, 'leaked' | 'orphans' | 'old' | 'again' | 'ghosts' | 'words'> {
  const { leaked } = oracle.count();
  const { orphans, oldDelivered: old, again, ghosts, olds } = traffic;
  return { leaked, orphans, old, again, ghosts, words: [...olds, ...oracle.leaks.slice(0, 4).map((leak) => `leak ${JSON.stringify(leak)}`)] };
}
export type { Scene };
