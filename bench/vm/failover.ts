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
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { until } from '../bed/commands.ts';
import { nowUs } from '../bed/libc.ts';
import { median } from '../bed/stats.ts';
import { VmBed } from './bed.ts';
import { CountingClient } from './client.ts';
import type { ClientAccount } from './client-account.ts';
import { EngineProcess } from './engine.ts';
import { explain, type Explanation } from './explain.ts';
import { Eye } from './eye.ts';
import { countOf } from './lab.ts';
import { Relay } from './relay.ts';
import { Wire } from './wire.ts';

export const MOMENTS = ['running', 'stopped', 'saving', 'cut', 'release'] as const;
export type Moment = (typeof MOMENTS)[number];

export interface FailoverOptions {
  readonly guests: 2 | 3;
  readonly moment: Moment;
  /** 0 to 1: where in the moment's span. */
  readonly at: number;
  readonly intervalMs?: number;
  /** Failovers one after the other, each with the sides changed; the moment is the same. */
  readonly deaths?: number;
  readonly engine?: readonly string[];
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
  readonly explained: Explanation;
  readonly engineSaid: string;
}

const INTERVAL_MS = 25;
const SPACING_MS = 1;
const READY_MS = 20_000;
const WARM_ANSWERS = 20;
const AFTER_ANSWERS = 30;
const GOES_ON_MS = 8000;
const RANDOM_SPAN_MS = 300;
const SAVING_SPAN_MS = 25;
const RELEASE_SPAN_MS = 2;

/** What the run is made of, while it runs. */
interface Stage {
  readonly bed: VmBed;
  readonly relay: Relay;
  readonly eye: Eye;
  readonly wire: Wire;
  readonly client: CountingClient;
  readonly engine: EngineProcess;
}

export async function failover(options: FailoverOptions): Promise<Failover> {
  const say = options.say ?? (() => undefined);
  const bed = await VmBed.create({ guests: options.guests });
  const open: { close(): unknown }[] = [bed];
  try {
    await bed.startGuests();
    await bed.bed.daemon().start('live');
    const relay = await Relay.create(join(bed.bed.directory, 'relay.sock'), bed.bed.daemon().socket);
    open.push(relay);
    const eye = new Eye(bed);
    open.push(eye);
    const wire = new Wire(bed);
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), SPACING_MS);
    open.push({ close: () => client.end() });
    await client.counts(WARM_ANSWERS, GOES_ON_MS);
    const engine = new EngineProcess(bed, {
      socket: relay.socket, intervalMs: options.intervalMs ?? INTERVAL_MS, ...(options.engine === undefined ? {} : { more: options.engine }),
    });
    open.push({ close: () => engine.kill() });
    const stage: Stage = { bed, relay, eye, wire, client, engine };
    const deaths: Death[] = [];
    for (let i = 0; i < (options.deaths ?? 1); i++) deaths.push(await die(stage, i, options, say));
    return await settle(stage, deaths);
  } finally {
    for (const each of open.reverse()) await each.close();
  }
}

/** Waits until the group may die, lets it, and waits until the client counts on. */
async function die(stage: Stage, i: number, options: FailoverOptions, say: (text: string) => void): Promise<Death> {
  const { engine, client, eye, bed } = stage;
  const side = i % 2 === 0 ? 0 : 1;
  const other = side === 0 ? 1 : 0;
  await engine.says('ready', READY_MS, i + 1);
  await client.counts(WARM_ANSWERS, GOES_ON_MS);
  const names = bed.group.guests.map(({ name }) => name);
  const killUs = await strike(stage, side, options, () => bed.kill(names, side));
  say(`killed ${names.join(' and ')}`);
  const before = client.where()?.answers ?? 0;
  await until(`the standbys run\n${engine.output().slice(-3000)}`, () => eye.allRunningUs(other, killUs) !== undefined, GOES_ON_MS);
  await client.counts(AFTER_ANSWERS, GOES_ON_MS);
  const killToRunningMs = ((eye.allRunningUs(other, killUs) ?? Number.NaN) - killUs) / 1e3;
  say(`standbys run after ${killToRunningMs.toFixed(1)} ms; ${(client.where()?.answers ?? 0) - before} more answers`);
  return { killUs, killToRunningMs, gapMs: Number.NaN };
}

/** Strikes at the moment; the time at which it did. */
async function strike({ relay, eye }: Stage, side: 0 | 1, { moment, at }: FailoverOptions, kill: () => void): Promise<number> {
  let struckUs: number | undefined;
  const blow = (): void => {
    if (struckUs !== undefined) return;
    struckUs = nowUs();
    kill();
  };
  const later = (ms: number): void => void setTimeout(blow, ms);
  if (moment === 'running') later(at * RANDOM_SPAN_MS);
  if (moment === 'stopped') eye.onSighting = (seen) => { if (seen.side === side && seen.what === 'STOP') blow(); };
  if (moment === 'saving') eye.onSighting = (seen) => { if (seen.side === side && seen.what === 'STOP') later(at * SAVING_SPAN_MS); };
  if (moment === 'cut') relay.after = ({ verb }) => { if (verb === 'cut') blow(); };
  if (moment === 'release') relay.before = ({ verb }) => { if (verb === 'commit') later(at * RELEASE_SPAN_MS); return true; };
  await until(`the moment "${moment}" comes`, () => struckUs !== undefined, GOES_ON_MS);
  eye.onSighting = undefined;
  relay.before = undefined;
  relay.after = undefined;
  return struckUs ?? Number.NaN;
}

/** Ends the client, asks the guests, then ends the engine: what the guests answer is held like any frame. */
async function settle({ bed, client, engine, eye, wire, relay }: Stage, deaths: readonly Death[]): Promise<Failover> {
  const account = await client.stop();
  await sleep(50);
  const [frontCount, storeCount] = [await countOf(bed, 'front'), await countOf(bed, 'store')];
  await engine.stop();
  wire.close();
  const gapAround = ({ killUs }: Death): number => {
    const around = account.gaps.filter(({ fromMs, ms }) => fromMs * 1e3 <= killUs + 50e3 && (fromMs + ms) * 1e3 > killUs);
    return Math.max(...around.map(({ ms }) => ms));
  };
  return {
    deaths: deaths.map((death) => ({ ...death, gapMs: gapAround(death) })),
    stopsMs: [...eye.groupStopsMs(0), ...eye.groupStopsMs(1)],
    account, frontCount, storeCount,
    explained: explain(wire.sent, wire.seen, relay.commands),
    engineSaid: engine.output(),
  };
}

/** What must not be, in words; nothing where all is well. */
export function faults(run: Failover): string[] {
  const { account, explained } = run;
  return [
    ...(account.broken === undefined ? [] : [`the connection broke: ${account.broken}`]),
    ...account.wrong.map(({ number, due }) => `the client was answered ${number} and not ${due}`),
    ...(run.frontCount === run.storeCount ? [] : [`front has ${run.frontCount}, store ${run.storeCount}`]),
    ...(account.last !== undefined && account.last > run.storeCount ? [`the client was told ${account.last}, store has ${run.storeCount}`] : []),
    ...explained.unexplained.map(({ atUs, key }) => `frame ${key} left at ${atUs}: the committed state does not explain it`),
    ...(explained.seen === 0 ? ['the oracle saw nothing'] : []),
  ];
}

export const medianStopMs = (run: Failover): number => median(run.stopsMs);
