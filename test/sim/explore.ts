/** Two ways through the world of hosts: every state to a bound, breadth first; or one long random walk. */
import { createHash } from 'node:crypto';
import { colourDiff } from '../../proxy/core/types.ts';
import type { GroupSpec, GroupState } from '../../proxy/core/types.ts';
import { RULES, begin, moves } from './hosts-world.ts';
import type { Bounds, Host, Rules, World } from './hosts-world.ts';
import { Random } from './random.ts';

export interface Explored {
  readonly states: number;
  readonly moves: number;
  readonly depth: number;
  /** False: the bound on states ended it. */
  readonly whole: boolean;
  readonly seen: Readonly<Record<string, number>>;
  /** Worlds that passed for another and were asked. */
  readonly passed?: number;
}

/** Colours count without end, so states are told apart by what colours mean. */
function stateKey(state: GroupState | undefined): string {
  if (state === undefined) return '-';
  const { phase, generation, sealed, acked, committed, across, members } = state;
  return [phase.slice(0, 1), generation, sealed, acked, committed, across?.serial, across?.pending?.serial, members.length, state.takeover?.generation].join();
}

function hostKey(world: World, { machine, state, journal, disk, vm, ring, shown }: Host): string {
  const frames = ring.map((frame) => `${frame.generation}.${frame.epoch}@${state === undefined ? '' : colourDiff(frame.colour, state.colourBase)}`);
  const lives = [...[state, journal, disk].flatMap((one) => [one?.across?.life, one?.across?.pending?.life]), vm?.life, ...ring.map(({ life }) => life)].map((life) => lifeKey(world, life)).join('');
  return [machine.length, state === undefined ? shown : stateKey(state), journal === state ? '' : stateKey(journal), disk === state ? '' : stateKey(disk), vm === undefined ? '' : `${vm.generation}.${vm.epoch}`, frames.join(), lives].join('|');
}

/** Until the ledger is brought back a generation has one life. */
const lifeKey = ({ used }: World, life: string | undefined): string => (used.restores === 0 ? '' : `/${life}`);

/** What else a host's name is in. */
function nameKeys(world: World, name: string): string {
  const acks = new Set(world.acks.filter(({ host }) => host === name).map(({ generation, epoch, life }) => `${generation}.${epoch}${lifeKey(world, life)}`));
  const of = (record: Readonly<Record<string, number>>): string => Object.entries(record).flatMap(([key, e]) => (key.split('/')[1] === name ? [`${key.replace(name, '')}=${e}`] : [])).sort().join();
  return [[...acks].sort().join(), of(world.store.acks), of(world.written), of(world.durable), of(world.backup?.acks ?? {})].join('|');
}

/** Everything that is the group's, under these names for its hosts. */
function sharedKey(world: World, order: readonly number[]): string {
  const place = new Map(order.map((host, at) => [world.hosts[host]?.name, at]));
  const spread = (spec: GroupSpec): string => order.map((member) => place.get(spec.members[member]?.host)).join('');
  const swaps = world.swaps.map(({ revision, head, witness }) => `${revision}:${head.serial}:${head.generation}${head.phase}${head.start}${place.get(witness?.host)}.${spread(head.spec)}${lifeKey(world, head.life)}`);
  const sent = world.sent.map((one) => `${one.generation}.${one.epoch}as${one.as.generation}.${one.as.epoch}${lifeKey(world, one.life)}`).sort();
  const heads = world.heads.map((head) => `${head.serial}${head.phase}${head.start}${spread(head.spec)}${lifeKey(world, head.life)}`);
  const { backup, left, used, store } = world;
  return JSON.stringify([store.revision, store.head?.serial, lifeKey(world, store.head?.life), backup?.revision, swaps, sent, heads, Object.entries(left).sort(), used]);
}

/** 96 bits of it: of ten million states two share theirs with a chance of 1 in 10^15, and a million fit in memory. */
const hashed = (text: string): string => createHash('sha1').update(text).digest('base64').slice(0, 16);

/**
 * Hosts are alike: a world in which two of them have changed places, with their members, goes on in the
 * same way. Of all such worlds the key is one: hosts in the order of their own keys, and where these are
 * equal the order in which what is the group's reads least.
 */
function keyOf(world: World): string {
  const own = world.hosts.map((host) => `${hostKey(world, host)}#${nameKeys(world, host.name)}`);
  const orders = ordersOf(own);
  const shared = orders.map((order) => sharedKey(world, order)).sort();
  return hashed(`${[...own].sort().join('\n')}\n${shared[0]}`);
}

/** Every order of places in which what stands there does not fall. */
function ordersOf(own: readonly string[]): readonly (readonly number[])[] {
  const go = (taken: readonly number[]): (readonly number[])[] => {
    if (taken.length === own.length) return [taken];
    const rest = own.map((_, at) => at).filter((at) => !taken.includes(at));
    const least = rest.map((at) => own[at] ?? '').sort()[0];
    return rest.filter((at) => own[at] === least).flatMap((at) => go([...taken, at]));
  };
  return go([]);
}

export const kindOf = (what: string): string => what.replaceAll(/\bh\d\b|[\d/{}":,]|in place/g, '').replaceAll(/\s+/g, ' ').trim();

/**
 * Throws the Violation, with the way to it. With `doubted`, each world that passes for another is asked
 * whether it goes on as that one does, to the same states.
 */
export function exhaust(bounds: Bounds, statesMax: number, { rules = RULES, doubted = false } = {}): Explored {
  const first = begin(bounds);
  const known = new Set([keyOf(first)]);
  const seen: Record<string, number> = {};
  const doubts = doubted ? new Doubts(rules, bounds) : undefined;
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
        if (known.has(key)) {
          doubts?.passes(key, after);
          continue;
        }
        known.add(key);
        doubts?.stands(key, after);
        seen[kindOf(what)] = (seen[kindOf(what)] ?? 0) + 1;
        next.push({ world: after, way: { what, before: way } });
        if (known.size >= statesMax) return { states: known.size, moves: made, depth, whole: false, seen };
      }
    }
    layer = next;
  }
  return { states: known.size, moves: made, depth, whole: true, seen, ...(doubts === undefined ? {} : { passed: doubts.passed }) };
}

/** Worlds that are told to be one: each must go on to the same states as the first of them. */
class Doubts {
  readonly #rules: Rules;
  readonly #bounds: Bounds;
  readonly #first = new Map<string, World>();
  passed = 0;

  constructor(rules: Rules, bounds: Bounds) {
    this.#rules = rules;
    this.#bounds = bounds;
  }

  stands(key: string, world: World): void {
    this.#first.set(key, world);
  }
  passes(key: string, world: World): void {
    this.passed += 1;
    const first = this.#first.get(key);
    if (first !== undefined && this.#after(first) !== this.#after(world)) throw new Error(`two worlds pass for one, and go on to other states:\n${JSON.stringify(first)}\n${JSON.stringify(world)}`);
  }
  #after(world: World): string {
    return [...new Set(moves(this.#rules, this.#bounds, world).map(({ make }) => keyOf(make())))].sort().join();
  }
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
