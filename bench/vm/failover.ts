/**
 * One failover of a group of real VMs: everything up, a client counting, a death at a chosen moment,
 * and what the client, the guests and the wire say afterwards.
 *
 *   guests boot ─ client counts ─ engine protects ─ standbys ready ─ … ─ SIGKILL of all ─ … ─ settled
 *                                                                  moment ┘        the count goes on
 *
 * The moments, each seen from outside the engine:
 *
 *   running   a random time, whatever the guests do          stopped   at a guest's STOP
 *   saving    a few ms after a STOP                          cut       the daemon has answered a cut,
 *   release   a commit has gone to the daemon                          the engine does not know it yet
 *
 * The account is the client's own; the oracle's is explain.ts. Nothing is decided here: `faults`
 * names what must not be.
 */
import { join } from 'node:path';
import { until } from '../bed/commands.ts';
import { VmBed } from './bed.ts';
import { CountingClient } from './client.ts';
import type { ClientAccount } from './client-account.ts';
import { EngineProcess, type Said } from './engine.ts';
import { explain, type Explanation } from './explain.ts';
import { Eye } from './eye.ts';
import { countOf } from './lab.ts';
import { Relay } from './relay.ts';
import { Sieve, type SieveKind } from './sieve.ts';
import { Wire } from './wire.ts';

export const MOMENTS = ['running', 'stopped', 'saving', 'cut', 'release'] as const;
export type Moment = (typeof MOMENTS)[number];

export interface FailoverOptions {
  readonly guests: 2 | 3;
  readonly moment: Moment;
  /** 0 to 1: where in the moment's span. */
  readonly at: number;
  /** SIGKILL to all, or a front that goes silent; default all. */
  readonly by?: 'kill' | 'silence';
  readonly intervalMs?: number;
  /** Failovers one after the other, each with the sides changed; the moment is the same. */
  readonly deaths?: number;
  readonly engine?: readonly string[];
  /** False: no relay and no capture, so that figures are the product's alone. Only the first three moments then. */
  readonly oracle?: boolean;
  /** What the takeover lets out of the dead life is counted, or counted and dropped. Only with the oracle. */
  readonly sieve?: SieveKind | undefined;
  readonly say?: (text: string) => void;
}

export interface Death {
  readonly killUs: number;
  readonly killToRunningMs: number;
  /** The client's gap around it. */
  readonly gapMs: number;
}

export interface Failover {
  readonly deaths: readonly Death[];
  readonly stopsMs: readonly number[];
  readonly account: ClientAccount;
  readonly frontCount: number;
  readonly storeCount: number;
  /** Undefined without the oracle. */
  readonly explained: Explanation | undefined;
  readonly checkpoints: number;
  /** TCP frames of the dead lives that the takeovers let out. Undefined without a sieve. */
  readonly givenAgain: number | undefined;
  /** The engine's word of each takeover, milliseconds since it saw the death. */
  readonly takeovers: readonly Said[];
  /** The client's round trips before and under protection, milliseconds. */
  readonly plainMs: readonly number[];
  readonly protectedMs: readonly number[];
}

const INTERVAL_MS = 25;
const SPACING_MS = 1;
const READY_MS = 20_000;
const WARM_ANSWERS = 20;
const AFTER_ANSWERS = 30;
/** A client that hangs, hangs for ever; one on a machine that others load is only slow. */
const GOES_ON_MS = 20_000;
const RANDOM_SPAN_MS = 300;
const SAVING_SPAN_MS = 25;
const RELEASE_SPAN_MS = 2;
/** Answers already on their way arrive after the kill; the gap begins behind them. */
const GAP_LATE_MS = 50;

/** What the run is made of, while it runs. */
interface Stage {
  readonly bed: VmBed;
  readonly relay: Relay | undefined;
  readonly wire: Wire | undefined;
  readonly sieve: Sieve | undefined;
  readonly eye: Eye;
  readonly client: CountingClient;
  readonly engine: EngineProcess;
  /** Answers that the client had when protection began. */
  readonly plainAnswers: number;
  readonly say: (text: string) => void;
}

export async function failover(options: FailoverOptions): Promise<Failover> {
  const say = options.say ?? (() => undefined);
  const bed = await VmBed.create({ guests: options.guests });
  try {
    await bed.startGuests();
    say(`${bed.group.guests.length} VMs serve: ${bed.group.guests.map(({ name }) => name).join(' asks ')}`);
    await bed.bed.daemon().start('live');
    const stage = await setUp(bed, options, say);
    const deaths: Death[] = [];
    try {
      for (let i = 0; i < (options.deaths ?? 1); i++) deaths.push(await die(stage, i, options));
      return await settle(stage, deaths);
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : String(error)}\nthe engine said: ${stage.engine.output().slice(-4000)}`, { cause: error });
    }
  } finally {
    await bed.close();
  }
}

/** The client counts, then the engine begins; the bed owns what was started, whatever fails. */
async function setUp(bed: VmBed, options: FailoverOptions, say: Stage['say']): Promise<Stage> {
  const daemon = bed.bed.daemon().socket;
  const relay = options.oracle === false ? undefined : await Relay.create(join(bed.bed.directory, 'relay.sock'), daemon);
  if (relay !== undefined) bed.own(relay);
  const eye = bed.own(new Eye(bed));
  const wire = relay === undefined ? undefined : new Wire(bed);
  if (wire !== undefined) bed.own(wire);
  const sieve = options.sieve === undefined ? undefined : bed.own(await Sieve.create(bed, options.sieve));
  const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), SPACING_MS);
  bed.own({ close: () => client.end() });
  await client.counts(WARM_ANSWERS, GOES_ON_MS);
  say(`a client counts over one TCP connection: ${client.where()?.last}`);
  const engine = new EngineProcess(bed, {
    socket: relay?.socket ?? daemon, intervalMs: options.intervalMs ?? INTERVAL_MS, more: options.engine ?? [],
  });
  bed.own({ close: () => engine.kill() });
  await engine.says('protected', READY_MS);
  const plainAnswers = client.where()?.answers ?? 0;
  say('protected: what the VMs send outside is held until the checkpoint behind it is safe');
  return { bed, relay, wire, sieve, eye, client, engine, plainAnswers, say };
}

/** Waits until the group may die, lets it, and waits until the client counts on. */
async function die(stage: Stage, i: number, options: FailoverOptions): Promise<Death> {
  const { engine, client, eye, bed, say } = stage;
  const [side, other] = i % 2 === 0 ? [0 as const, 1 as const] : [1 as const, 0 as const];
  const names = bed.group.guests.map(({ name }) => name);
  await engine.says('standby', READY_MS, names.length * (i + 1));
  say('standbys are ready: the other sides of the VMs hold the newest checkpoint and wait');
  await client.counts(WARM_ANSWERS, GOES_ON_MS);
  const silent = options.by === 'silence';
  say(`${silent ? 'the front stands still' : `kill -9 of ${names.join(' and ')}`}; the client has ${client.where()?.last}`);
  const killUs = await strike(stage, side, options, () => (silent ? bed.freeze('front', side) : bed.kill(names, side)));
  const running = (): number | undefined => eye.allRunningUs(other, killUs);
  await until('the standbys run', () => running() !== undefined, GOES_ON_MS);
  const killToRunningMs = ((running() ?? Number.NaN) - killUs) / 1e3;
  say(`the other sides run, ${killToRunningMs.toFixed(0)} ms after the kill`);
  await client.counts(AFTER_ANSWERS, GOES_ON_MS);
  say(`the count goes on: ${client.where()?.last}`);
  return { killUs, killToRunningMs, gapMs: Number.NaN };
}

/** Strikes at the moment; the time at which it did. */
async function strike({ relay, sieve, eye }: Stage, side: 0 | 1, { moment, at }: FailoverOptions, kill: () => number): Promise<number> {
  let struckUs: number | undefined;
  const blow = (): void => {
    if (struckUs !== undefined) return;
    struckUs = kill();
    sieve?.putIn();
  };
  const later = (ms: number): void => void setTimeout(blow, ms);
  if (moment === 'running') later(at * RANDOM_SPAN_MS);
  if (moment === 'stopped') eye.onSighting = (seen) => { if (seen.side === side && seen.what === 'STOP') blow(); };
  if (moment === 'saving') eye.onSighting = (seen) => { if (seen.side === side && seen.what === 'STOP') later(at * SAVING_SPAN_MS); };
  if (relay !== undefined && moment === 'cut') relay.after = ({ verb }) => { if (verb === 'cut') blow(); };
  if (relay !== undefined && moment === 'release') relay.before = ({ verb }) => { if (verb === 'commit') later(at * RELEASE_SPAN_MS); };
  await until(`the moment "${moment}" comes`, () => struckUs !== undefined, GOES_ON_MS);
  eye.onSighting = undefined;
  if (relay !== undefined) [relay.before, relay.after] = [whenReborn(relay, () => sieve?.takeOut()), undefined];
  return struckUs ?? Number.NaN;
}

/** At the first cut of the next generation: nothing of it leaves before the commit behind it. */
function whenReborn({ commands }: Relay, act: () => void): Relay['before'] {
  const generation = commands.at(-1)?.generation ?? 0;
  return (command) => {
    if (command.verb === 'cut' && command.generation > generation) act();
  };
}

/** Ends the client, asks the guests, then ends the engine: what the guests answer is held like any frame. */
async function settle(stage: Stage, deaths: readonly Death[]): Promise<Failover> {
  const { bed, client, engine, eye, wire, sieve, relay, plainAnswers } = stage;
  const account = await client.stop();
  const [frontCount, storeCount] = [await countOf(bed, 'front'), await countOf(bed, 'store')];
  await engine.stop();
  wire?.finish();
  return {
    deaths: deaths.map((death) => ({ ...death, gapMs: gapAround(account, death) })),
    stopsMs: [...eye.groupStopsMs(0), ...eye.groupStopsMs(1)],
    account, frontCount, storeCount,
    explained: wire === undefined ? undefined : explain(wire.sent, wire.seen, relay?.commands ?? []),
    checkpoints: engine.said().filter(({ event }) => event === 'checkpoint').length,
    givenAgain: sieve?.frames,
    takeovers: engine.said().filter(({ event }) => event === 'takeover'),
    plainMs: account.latenciesMs.slice(0, plainAnswers),
    protectedMs: account.latenciesMs.slice(plainAnswers),
  };
}

/** The longest time between two answers that the death lies in, or that begins just after it. */
function gapAround({ answersAtMs }: ClientAccount, { killUs }: Death): number {
  const killMs = killUs / 1e3;
  const gaps = answersAtMs.map((atMs, i) => ({ fromMs: answersAtMs[i - 1] ?? atMs, atMs }));
  return Math.max(...gaps.filter(({ fromMs, atMs }) => fromMs <= killMs + GAP_LATE_MS && atMs > killMs).map(({ fromMs, atMs }) => atMs - fromMs));
}

/** What must not be, in words; nothing where all is well. */
export function faults(run: Failover): string[] {
  const { account, explained } = run;
  return [
    ...(account.broken === undefined ? [] : [`the connection broke: ${account.broken}`]),
    ...account.wrong.map(({ number, due }) => `the client was answered ${number} and not ${due}`),
    ...(run.frontCount === run.storeCount ? [] : [`front has ${run.frontCount}, store ${run.storeCount}`]),
    ...(account.last !== undefined && account.last > run.storeCount ? [`the client was told ${account.last}, store has ${run.storeCount}`] : []),
    ...(explained?.unexplained ?? []).map(({ text }) => `unexplained outside: ${text}`),
    ...(explained?.seen === 0 ? ['the oracle saw nothing'] : []),
  ];
}
