/** Two ways through the world of hosts: every state to a bound, breadth first; or one long random walk. */
import { createHash } from 'node:crypto';
import { colourDiff } from '../../proxy/core/types.ts';
import type { GroupState } from '../../proxy/core/types.ts';
import { RULES, begin, moves } from './hosts-world.ts';
import type { Bounds, Rules, World } from './hosts-world.ts';
import { Random } from './random.ts';

export interface Explored {
  readonly states: number;
  readonly moves: number;
  readonly depth: number;
  /** False: the bound on states ended it. */
  readonly whole: boolean;
  readonly seen: Readonly<Record<string, number>>;
}

/** Colours count without end, so states are told apart by what colours mean. */
function stateKey(state: GroupState | undefined): string {
  if (state === undefined) return '-';
  const { phase, generation, sealed, acked, committed, across, members } = state;
  return [phase.slice(0, 1), generation, sealed, acked, committed, across?.serial, across?.pending?.serial, members.length, state.takeover?.generation].join();
}

/** 96 bits of it: of ten million states two share theirs with a chance of 1 in 10^15, and a million fit in memory. */
const keyOf = (world: World): string => createHash('sha1').update(textOf(world)).digest('base64').slice(0, 16);

function textOf(world: World): string {
  const hosts = world.hosts.map(({ machine, state, journal, disk, vm, ring, shown }) => {
    const frames = ring.map((frame) => `${frame.generation}.${frame.epoch}@${state === undefined ? '' : colourDiff(frame.colour, state.colourBase)}`);
    return [machine.length, state === undefined ? shown : stateKey(state), journal === state ? '' : stateKey(journal), disk === state ? '' : stateKey(disk), vm === undefined ? '' : `${vm.generation}.${vm.epoch}`, frames].join('|');
  });
  const acks = [...new Set(world.acks.map(({ host, generation, epoch }) => `${host}${generation}.${epoch}`))].sort();
  const swaps = world.swaps.map(({ revision, head, witness }) => `${revision}:${head.generation}${head.phase}${head.start}${witness?.host ?? ''}${head.spec.members.map(({ host }) => host).join('')}`);
  const sent = world.sent.map((one) => `${one.generation}.${one.epoch}as${one.as.generation}.${one.as.epoch}`).sort();
  const heads = world.heads.map((head) => `${head.phase}${head.start}${head.spec.members.map(({ host }) => host).join('')}`);
  const lives = world.used.restores === 0 ? [] : [world.hosts.map(({ state, vm, ring }) => [state?.across?.life, vm?.life, ring.map(({ life }) => life)]), world.heads.map(({ life }) => life), world.backup];
  return JSON.stringify([lives, world.backup?.revision, world.backup?.acks, hosts, acks, swaps, sent, heads, world.store.acks, world.written, world.durable, world.left, world.used]);
}

export const kindOf = (what: string): string => what.replaceAll(/\bh\d\b|[\d/{}":,]|in place/g, '').replaceAll(/\s+/g, ' ').trim();

/** Throws the Violation, with the way to it. */
export function exhaust(bounds: Bounds, statesMax: number, rules: Rules = RULES): Explored {
  const first = begin(bounds);
  const known = new Set([keyOf(first)]);
  const seen: Record<string, number> = {};
  let layer: { world: World; way: Way | undefined }[] = [{ world: first, way: undefined }];
  let made = 0;
  let depth = 0;
  for (; layer.length > 0; depth += 1) {
    const next: typeof layer = [];
    for (const { world, way } of layer) {
      for (const { what, make } of moves(rules, bounds, world)) {
        made += 1;
        const after = follow(make, () => stepsOf({ what, before: way }));
        const key = keyOf(after);
        if (known.has(key)) continue;
        known.add(key);
        seen[kindOf(what)] = (seen[kindOf(what)] ?? 0) + 1;
        next.push({ world: after, way: { what, before: way } });
        if (known.size >= statesMax) return { states: known.size, moves: made, depth, whole: false, seen };
      }
    }
    layer = next;
  }
  return { states: known.size, moves: made, depth, whole: true, seen };
}

/** How a state was reached; states share their beginnings. */
interface Way {
  readonly what: string;
  readonly before: Way | undefined;
}
function stepsOf(way: Way): string[] {
  const steps: string[] = [];
  for (let at: Way | undefined = way; at !== undefined; at = at.before) steps.unshift(at.what);
  return steps;
}

function follow(make: () => World, way: () => readonly string[]): World {
  try {
    return make();
  } catch (error) {
    if (error instanceof Error) error.message = `${error.message}\n  after: ${way().slice(-40).join('\n         ')}`;
    throw error;
  }
}

/** Whole lives of a group, one after the other, until the steps are used up. */
export function wander(bounds: Bounds, steps: number, seed: number, rules: Rules = RULES): Explored {
  const random = new Random(seed);
  const seen: Record<string, number> = {};
  let world = begin(bounds);
  let way: string[] = [];
  let lives = 1;
  /** One host is paused for a while, and wakes. */
  let paused = { host: '', from: 0, until: 0 };
  for (let n = 0; n < steps; n += 1) {
    const all = moves(rules, bounds, world);
    if (way.length === 0) paused = { host: `h${1 + random.below(bounds.hosts)} `, from: random.below(40), until: random.below(160) };
    const isPaused = way.length >= paused.from && way.length < paused.until;
    const awake = isPaused ? all.filter(({ what }) => !what.startsWith(paused.host)) : all;
    const list = awake.length > 0 ? awake : all;
    // Deaths are rare, or every life would be short.
    const rare = list.filter(({ what }) => !/ (dies|crashes|loses|gives up)|takes over|asks|in vain/.test(what));
    const from = rare.length > 0 && !random.chance(0.08) ? rare : list;
    const move = from[random.below(from.length)];
    if (move === undefined || way.length > 400) {
      world = begin(bounds);
      way = [];
      lives += 1;
      continue;
    }
    way.push(move.what);
    seen[kindOf(move.what)] = (seen[kindOf(move.what)] ?? 0) + 1;
    world = follow(move.make, () => way);
  }
  return { states: lives, moves: steps, depth: way.length, whole: true, seen };
}
