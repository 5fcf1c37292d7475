/**
 * What can go wrong with one of three hosts, as a table: each fault strikes, and is over by what it
 * returns. After a *passing* fault the group goes on in its generation; a *deadly* one ends the host's
 * part of it, and the others take over.
 *
 *   networks   ledger, peers, both; mute, deaf, both ways (cuts.ts); unplugged: the device is down
 *   sluiced    paused for longer than its lease; killed and started again
 *   etcd       leader killed; leader paused; majority killed; syncs that take 50-250 ms
 *   clocks     the wall clock an hour off and back; time since boot jumps ahead; etcd as after a boot
 *   wire       tagged frames doubled, delayed, overtaken, some by seconds
 *
 *   deadly     killed at a step of an epoch; paused and taken over; cut off and taken over
 */
import { sleep } from '../bed/commands.ts';
import type { Cluster } from '../bed/cluster.ts';
import type { Clocks } from './clocks.ts';
import type { Cuts, Direction, Network } from './cuts.ts';
import type { HostsEngine, Step } from './engine.ts';
import { Relay, colourOf, type Hand } from './relay.ts';

export interface Stage {
  readonly cluster: Cluster;
  readonly engine: HostsEngine;
  readonly cuts: Cuts;
  readonly clocks: Clocks;
  readonly random: () => number;
}
export type Undo = () => Promise<void>;
type Strike = (stage: Stage, host: number) => Promise<Undo>;
export interface Fault {
  readonly strike: Strike;
  /** How long it lasts, milliseconds: at least, and so much more at most. */
  readonly lastsMs: readonly [number, number];
}

const SHORT = [800, 1200] as const;
/** Longer than the lease, which is 3 s. */
const LONG = [3400, 900] as const;

const cut = (direction: Direction, ...networks: readonly Network[]): Fault => ({
  lastsMs: SHORT,
  strike: async ({ cuts }, host) => {
    const mend: Undo[] = [];
    for (const network of networks) mend.push(await cuts.make(network, host, direction));
    return async () => {
      for (const one of mend) await one();
    };
  },
});

const unplugged: Strike = async ({ cluster }, host) => {
  await cluster.ledger(host, false);
  return () => cluster.ledger(host, true);
};
const paused: Strike = ({ cluster }, host) => {
  cluster.daemon(host).signal('SIGSTOP');
  return Promise.resolve(() => Promise.resolve(cluster.daemon(host).signal('SIGCONT')));
};
const restarted: Strike = async ({ cluster }, host) => {
  await cluster.daemon(host).kill();
  return () => cluster.daemon(host).start('live');
};

const leaderKilled: Strike = async ({ cluster: { etcd } }) => {
  const leader = await etcd.leader();
  await etcd.kill(leader);
  return () => Promise.resolve(etcd.startNode(leader));
};
const leaderPaused: Strike = async ({ cluster: { etcd } }) => {
  const leader = await etcd.leader();
  etcd.pause(leader);
  return () => Promise.resolve(etcd.wake(leader));
};
const majorityLost: Strike = async ({ cluster: { etcd } }, host) => {
  const lost = [host, (host + 1) % 3];
  await Promise.all(lost.map((node) => etcd.kill(node)));
  return () => {
    for (const node of lost) etcd.startNode(node);
    return Promise.resolve();
  };
};
const diskSlow: Strike = async ({ cluster: { etcd }, random }, host) => {
  const nodes = random() < 0.5 ? [host] : [0, 1, 2];
  const syncMs = 50 + Math.floor(random() * 200);
  const fast = await Promise.all(nodes.map((node) => etcd.slowDisk(node, syncMs)));
  return async () => void (await Promise.all(fast.map((one) => one())));
};

const wallClock: Strike = ({ clocks, random }, host) => {
  const byS = random() < 0.5 ? 3600 : -3600;
  clocks.jump(host, byS, 0);
  return Promise.resolve(() => Promise.resolve(clocks.jump(host, -byS, 0)));
};
const bootClock: Strike = ({ clocks, random }, host) => {
  clocks.jump(host, 0, 5 + Math.floor(random() * 3600));
  return Promise.resolve(() => Promise.resolve());
};
const etcdClock: Strike = async ({ cluster: { etcd }, random }, host) => {
  await etcd.kill(host);
  etcd.startNode(host, 1000 + Math.floor(random() * 1e6));
  return () => Promise.resolve();
};

/** Some of the tagged frames twice, some later, a few so late that no epoch of theirs is known any more. */
function mangled(random: () => number): Hand {
  return (frame) => {
    if (colourOf(frame) === undefined) return [{ frame, delayMs: 0 }];
    const kind = random();
    const later = { frame, delayMs: 2 + random() * 200 };
    if (kind < 0.15) return [{ frame, delayMs: 0 }, later];
    if (kind < 0.45) return [later];
    if (kind < 0.5) return [{ frame, delayMs: 0 }, { frame, delayMs: 600 + random() * 1500 }];
    return [{ frame, delayMs: 0 }];
  };
}
const wire: Strike = async ({ cluster, random }, host) => {
  const relay = await Relay.insert(cluster.bed, host, mangled(random));
  return () => relay.remove();
};

export const PASSING = {
  'ledger cut': cut('both', 'ledger'),
  'ledger mute': cut('mute', 'ledger'),
  'ledger deaf': cut('deaf', 'ledger'),
  'ledger unplugged': { strike: unplugged, lastsMs: SHORT },
  'peers cut': cut('both', 'peers'),
  'peers mute': cut('mute', 'peers'),
  'peers deaf': cut('deaf', 'peers'),
  'both cut': cut('both', 'ledger', 'peers'),
  'both mute': cut('mute', 'ledger', 'peers'),
  'both deaf': cut('deaf', 'ledger', 'peers'),
  'sluiced paused': { strike: paused, lastsMs: LONG },
  'sluiced killed': { strike: restarted, lastsMs: [100, 500] },
  'leader killed': { strike: leaderKilled, lastsMs: SHORT },
  'leader paused': { strike: leaderPaused, lastsMs: SHORT },
  'majority lost': { strike: majorityLost, lastsMs: SHORT },
  'disk slow': { strike: diskSlow, lastsMs: SHORT },
  'wall clock jumps': { strike: wallClock, lastsMs: SHORT },
  'boot clock jumps': { strike: bootClock, lastsMs: SHORT },
  'etcd clock jumps': { strike: etcdClock, lastsMs: SHORT },
  'wire mangled': { strike: wire, lastsMs: SHORT },
} as const satisfies Record<string, Fault>;
export type Passing = keyof typeof PASSING;

export interface DeadlyFault extends Fault {
  /** The host's VMs speak all along: only their sluiced, or their networks, are gone. */
  readonly areVmsAlive: boolean;
  /** The host's etcd node is out of reach as well. */
  readonly cutsLedger?: boolean;
}

/** The host dies at this step: sluiced, its ports, and every second time its etcd node. */
const killed = (...steps: readonly [Step, boolean][]): DeadlyFault => ({
  areVmsAlive: false,
  lastsMs: [0, 0],
  strike: async ({ cluster, engine, random }, host) => {
    const [step, isOwn] = steps[Math.floor(random() * steps.length)] ?? ['begin', false];
    await new Promise<void>((resolve) => {
      engine.at = (at, of) => {
        if (at !== step || (isOwn && of !== host)) return;
        engine.at = () => undefined;
        cluster.daemon(host).signal('SIGKILL');
        resolve();
      };
    });
    const withEtcd = random() < 0.5;
    await Promise.all([cluster.daemon(host).kill(), cluster.ports(host, false), ...(withEtcd ? [cluster.etcd.kill(host)] : [])]);
    return async () => {
      cluster.etcd.startNode(host);
      await cluster.daemon(host).start('live');
      await cluster.ports(host, true);
    };
  },
});

export const DEADLY = {
  'killed before cut': killed(['begin', false]),
  'killed after cut': killed(['cut', true], ['cut', false], ['sealed', false]),
  'killed after ack': killed(['acked', true]),
  'killed in commit': killed(['asked', false], ['end', false]),
  'paused, taken over': { strike: paused, lastsMs: LONG, areVmsAlive: true },
  'ledger cut, taken over': { ...cut('both', 'ledger'), areVmsAlive: true, cutsLedger: true },
  'ledger deaf, taken over': { ...cut('deaf', 'ledger'), areVmsAlive: true, cutsLedger: true },
  'both cut, taken over': { ...cut('both', 'ledger', 'peers'), areVmsAlive: true, cutsLedger: true },
} as const satisfies Record<string, DeadlyFault>;
export type Deadly = keyof typeof DEADLY;

/** What may strike another host while these last; a takeover must find two living hosts and the ledger. */
export const BESIDE_PASSING = ['ledger cut', 'ledger mute', 'ledger deaf', 'peers cut', 'peers mute', 'peers deaf', 'sluiced killed', 'wall clock jumps', 'boot clock jumps', 'wire mangled'] as const satisfies readonly Passing[];
export const BESIDE_DEADLY = ['peers cut', 'peers mute', 'peers deaf', 'wall clock jumps', 'boot clock jumps', 'wire mangled'] as const satisfies readonly Passing[];

/** Until it is over, and some more: a fault's time is chosen by the run's seed. */
export const last = ({ lastsMs: [least, more] }: Fault, random: () => number): Promise<void> => sleep(least + random() * more);
