import { describe, expect, test } from 'vitest';
import { decideHead } from '../../proxy/core/hosts.ts';
import { step } from '../../proxy/core/step.ts';
import { epoch } from '../../proxy/core/types.ts';
import type { Epoch } from '../../proxy/core/types.ts';
import { exhaust, wander } from '../sim/explore.ts';
import { RULES } from '../sim/hosts-world.ts';
import type { Bounds, Rules } from '../sim/hosts-world.ts';
import { ackKey } from '../sim/memory-ledger.ts';

/**
 * The protocol between hosts, explored: every state to a bound, then far beyond it at random.
 * SLUICE_STATES and SLUICE_STEPS make both longer (`make explore`), SLUICE_SEED repeats a walk.
 */
const STATES = Number(process.env.SLUICE_STATES ?? 8_000);
const STEPS = Number(process.env.SLUICE_STEPS ?? 2_000);
const seed = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const isLong = process.env.SLUICE_STATES !== undefined;

const TWO: Bounds = { hosts: 2, epochs: 1, takeovers: 1, crashes: 0, kills: 0, lives: 0, restores: 0 };
const THREE: Bounds = { ...TWO, hosts: 3 };
/** Small, so that a walk of it meets everything soon. */
const NARROW: Bounds = { hosts: 2, epochs: 4, takeovers: 3, crashes: 1, kills: 0, lives: 0, restores: 0 };
/** The ledger is brought back from a backup, and protection ended and begun again by a host that knows as little. */
const BACKUP: Bounds = { ...TWO, takeovers: 0, lives: 3, restores: 1 };
const WIDE: Bounds = { hosts: 3, epochs: 10, takeovers: 6, crashes: 5, kills: 1, lives: 4, restores: 1 };

describe('hosts of a group', () => {
  const bounds: readonly (readonly [string, Bounds])[] = [
    ['two hosts, one epoch, one takeover', TWO],
    ['three hosts, one epoch, one crash or power cut', { ...THREE, takeovers: 0, crashes: 1 }],
    ['two hosts, one epoch, the ledger brought back from a backup, protected again', BACKUP],
    ...(isLong ? [
      ['two hosts, one epoch, one takeover, one crash or power cut, one death', { ...TWO, crashes: 1, kills: 1 }],
      ['three hosts, one epoch, one takeover', THREE],
      ['three hosts, one epoch, one takeover, one crash or power cut', { ...THREE, crashes: 1 }],
    ] as const : []),
  ];
  test.each(bounds)('%s: every state', (name, bound) => {
    const { states, moves, depth, whole, seen } = exhaust(bound, STATES);
    console.log(`${name}: ${states} states, ${moves} moves, ${depth} deep, ${whole ? 'exhaustive' : 'cut off'}: ${JSON.stringify(seen)}`);
    expect(whole || (bound === BACKUP && !isLong), 'the bound is explored whole').toBe(true);
    expect(states).toBeGreaterThan(400);
  }, 3_600_000);

  /** What counts as one state makes the bound smaller than the worlds it stands for; were it wrong, states would be missed. */
  const asked: readonly (readonly [string, Bounds])[] = [
    ['two hosts, one takeover', TWO], ['three hosts, one crash', { ...THREE, takeovers: 0, crashes: 1 }], ['a backup of the ledger', { ...BACKUP, lives: 1 }],
    ...(isLong ? [['three hosts, one takeover', THREE]] as const : []),
  ];
  test.each(asked)('%s: worlds that pass for one go on alike', (_name, bound) => {
    expect(exhaust(bound, STATES, { doubted: true }).passed).toBeGreaterThan(900);
  }, 3_600_000);

  test(`three hosts, crashes, deaths, takeovers, protection ended and begun: ${STEPS} steps from seed ${seed}`, () => {
    const { seen } = wander(WIDE, STEPS, seed);
    console.log(`seed ${seed}, ${STEPS} steps: ${JSON.stringify(seen)}`);
    for (const kind of ['cuts', 'acks', 'write ack', 'takes over', 'swap to generation protected', 'swap to generation idle', 'opens generation at', 'crashes', 'loses power', 'dies', 'restarts', 'gives up its old VMs']) {
      expect(seen[kind] ?? 0, kind).toBeGreaterThan(0);
    }
  }, 3_600_000);
});

const raised = (acks: Readonly<Record<string, Epoch>>): Record<string, Epoch> => {
  const most = epoch(Math.max(0, ...Object.values(acks)));
  return Object.fromEntries(Object.keys(acks).map((host) => [host, most]));
};
const startMoved = (epochs: number): Pick<Rules, 'decideHead'> => ({
  decideHead: (view, command, by) => {
    const decision = decideHead(view, command, by);
    const { swap } = decision;
    return swap === undefined || command.kind !== 'takeover' ? decision : { ...decision, swap: { ...swap, head: { ...swap.head, start: epoch(Math.max(0, swap.head.start + epochs)) } } };
  },
});
const takenForOurs: Rules['step'] = (state, input) => {
  const { head } = input.kind === 'ledger' ? input.view : { head: undefined };
  if (input.kind !== 'ledger' || head?.begun !== 'takeover' || state === undefined) return step(state, input);
  return step(state, { ...input, view: { ...input.view, head: { ...head, from: state.generation, fromLife: state.across?.life } } });
};
const put: Rules['acked'] = (store, write) => ({ ...store, acks: { ...store.acks, [ackKey(write)]: write.epoch } });

/** Each breaks one sentence of the protocol; the exploration must find a run in which that shows. */
const MUTATIONS: Readonly<Record<string, Partial<Rules>>> = {
  'released before all hosts acked': { step: (state, input) => step(state, input.kind === 'ledger' ? { ...input, view: { ...input.view, acks: raised(input.view.acks) } } : input) },
  'an ack is written whatever the generation': { acked: (store, write) => (store.acks[ackKey(write)] === write.epoch ? undefined : put(store, write)) },
  'a late ack takes a later one back': { acked: (store, write) => (store.acks[ackKey(write)] === undefined || store.acks[ackKey(write)] === write.epoch ? undefined : put(store, write)) },
  'R one too high': startMoved(1),
  'R one too low': startMoved(-1),
  'the swap does not ask for its witness': {
    decideHead: (view, command, by) => {
      const { reply, swap } = decideHead(view, command, by);
      if (swap === undefined) return { reply };
      const { witness, ...rest } = swap;
      return { reply, swap: witness === undefined ? swap : rest };
    },
  },
  'a generation opens without its engine': { opensByItself: true },
  'R is taken for one of any generation': { step: takenForOurs },
  'acks are published before they are journalled': { journalsAcks: false },
};
/** Where the one that takes a long pause at the right time is known to show. */
const FIRST_WALK: Readonly<Record<string, number>> = { 'R is taken for one of any generation': 27 };

describe('the exploration notices', () => {
  test.each(Object.entries(MUTATIONS))('%s', (name, mutation) => {
    let caught: unknown;
    let walks = 0;
    for (let walk = FIRST_WALK[name] ?? 1; walk <= 40 && caught === undefined; walk += 1) {
      walks = walk;
      try {
        wander(NARROW, 2_000, walk, { ...RULES, ...mutation });
      } catch (error) {
        caught = error;
      }
    }
    console.log(`after ${walks} walks:`, caught instanceof Error ? caught.message.split('\n')[0]?.slice(0, 150) : caught);
    expect(caught).toBeInstanceOf(Error);
    expect(caught instanceof Error ? caught.name : '').toMatch(/Violation|InvariantError/);
  }, 120_000);
});
