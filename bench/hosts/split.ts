/**
 * Two halves that both think the group is theirs: every way to bring that about, tried on the bed of
 * three hosts, and what came of it. Judged from outside like chaos (chaos.ts): a row is right where nothing
 * leaked, nobody heard a frame of another epoch or of a dead generation, and the answers are those that
 * the row expects.
 *
 *   asked      commands that would split the group, by hand: each is answered, with a code
 *   happened   faults after which the old half goes on as if nothing had happened: a row of chaos
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ApiRefusal } from '../bed/api.ts';
import { sleep, until } from '../bed/commands.ts';
import { Daemon } from '../bed/daemon.ts';
import { HOSTS, judged, takeOver, type Arena, type Outcome, type Scene } from './chaos.ts';
import { insist } from './engine.ts';
import type { Deadly, Passing } from './faults.ts';
import { finish, members, type Seat } from './story.ts';
import type { Life } from './traffic.ts';

const WAIT_MS = 60_000;
const WARM_EPOCHS = 3;
const GHOSTS_MS = 400;
/** Epochs of which a backup knows nothing. */
const BEYOND_BACKUP = 10;
/** m1 on h1, m2 on h2, m3 and m4 on h3. */
const HOMES = [0, 1, 2, 2] as const;
const seated = (homes: readonly number[]): Seat[] => homes.map((host, i) => ({ is: i * HOSTS, tap: i * HOSTS + host }));

export interface Tried {
  readonly attempt: string;
  readonly outcome: string;
  readonly faults: readonly string[];
}
/** What was answered, and what it should have been. */
interface Answers {
  readonly said: string;
  readonly wrong: readonly string[];
}
type Play = (scene: Scene) => Promise<Answers>;

const told = (said: string, ...wrong: readonly (string | false)[]): Answers => ({ said, wrong: wrong.filter((one) => one !== false) });
const unless = (is: boolean, wrong: string): string | false => !is && wrong;

/** The refusal's code, or `accepted`. */
const codeOf = (answer: Promise<unknown>): Promise<string> =>
  answer.then(() => 'accepted', (error: unknown) => error instanceof ApiRefusal ? error.code : String(error));

/** Asked until the ledger is not just late. */
async function decided(ask: () => Promise<unknown>): Promise<string> {
  let code = '';
  await until('it is decided', async () => (code = await codeOf(ask())) !== 'ledger_down', WAIT_MS);
  return code;
}

async function goesOn({ engine }: Scene): Promise<void> {
  const epoch = engine.open;
  await until('the group goes on', () => {
    if (engine.failure !== undefined) throw engine.failure;
    return engine.committed >= epoch;
  }, WAIT_MS);
}

/** h1 stands still, h2 and h3 both take over, each with h1's member for itself; then h1 wakes. */
const twoTakeovers: Play = async (scene) => {
  const { cluster, engine, life } = scene;
  const { generation } = engine;
  cluster.daemon(0).signal('SIGSTOP');
  await cluster.daemon(0).hangUp();
  for (const host of [1, 2]) life.silent.add(host);
  await engine.stop();
  engine.failure = undefined;
  const epoch = (await engine.state(1)).committed;
  const claims = [1, 2].map((host) => ({ host, members: members(cluster, seated([host, 1, 2, 2])) }));
  const codes = await Promise.all(claims.map(({ host, members: moved }) => codeOf(engine.say(host, 'takeover', { generation: generation + 1, epoch, members: moved }))));
  const winner = claims[codes.indexOf('accepted')]?.host;
  const later = await decided(() => engine.say(winner === 1 ? 2 : 1, 'takeover', { generation: generation + 1, epoch, members: claims[winner === 1 ? 1 : 0]?.members }));
  await takeOver(scene, 0, () => winner ?? 1);
  cluster.daemon(0).signal('SIGCONT');
  await until('h1 is fenced', async () => (await engine.state(0).catch(() => undefined))?.phase === 'fenced', WAIT_MS);
  const stale = await codeOf(engine.say(0, 'ack', { generation, epoch: epoch + 1 }));
  const again = await decided(() => engine.say(0, 'takeover', { generation: generation + 1, epoch }));
  await sleep(GHOSTS_MS);
  await goesOn(scene);
  return told(`${codes.join(' and ')}, the other one asked again: ${later}; woken h1: ack ${stale}, takeover with the winner's number ${again}`,
    unless(codes.filter((code) => code === 'accepted').length <= 1, 'both were accepted'), unless(winner === undefined || later === 'fenced', `the loser was then answered ${later}`),
    unless(stale === 'fenced', `the old ack was answered ${stale}`), unless(again === 'fenced', `h1's own takeover was answered ${again}`));
};

/** The half without a majority takes over. */
const cutOffTakesOver: Play = async (scene) => {
  const { engine, cuts } = scene;
  const mend = await cuts.make('ledger', 2, 'both');
  const code = await codeOf(engine.say(2, 'takeover', { generation: engine.generation + 1, epoch: (await engine.state(2)).committed }));
  await mend();
  await goesOn(scene);
  return told(`${code}; back in reach the group goes on in its generation`, unless(code === 'ledger_down', `answered ${code}`));
};

/** The others are alive and acked; a host takes over with other numbers than theirs. */
const wrongNumbers: Play = async (scene) => {
  const { engine } = scene;
  const { generation } = engine;
  const epoch = (await engine.state(1)).committed;
  const ask = (body: object): Promise<string> => decided(() => engine.say(1, 'takeover', body));
  const codes = {
    'an epoch that nobody acked': await ask({ generation: generation + 1, epoch: epoch + 1_000_000 }),
    'an epoch before what all acked': await ask({ generation: generation + 1, epoch: epoch - 1 }),
    'the generation that is': await ask({ generation, epoch }),
    'one that looks like it on the wire': await ask({ generation: generation + 16, epoch }),
  };
  await goesOn(scene);
  const wanted = ['not_acked', 'epoch_out_of_order', 'fenced', 'bad_request'];
  return told(Object.entries(codes).map(([name, code]) => `${name}: ${code}`).join('; '), unless(Object.values(codes).join() === wanted.join(), `not ${wanted.join(', ')}`));
};

/** Another sluiced says that it is h2, and would ack for its members. */
const sameName: Play = async (scene) => {
  const { bed, etcd } = scene.cluster;
  const directory = join(bed.directory, 'twin');
  mkdirSync(directory, { recursive: true });
  const twin = new Daemon({ namespace: bed.host(2), directory, pins: `${bed.pins(2)}-twin`, across: { host: 'h2', uplink: 'uplink', endpoints: etcd.endpoints } });
  try {
    const refusal = await twin.start('live').catch((error: unknown) => String(error));
    await until('it is refused', () => /the host name h2 is in use in the ledger by another sluiced/.test(`${refusal ?? ''} ${twin.log()}`), WAIT_MS);
  } finally {
    await twin.close();
  }
  await goesOn(scene);
  return told('the second one ends: the host name h2 is in use in the ledger by another sluiced');
};

/** What an engine of one host says, without the others'. */
const oneHostAlone: Play = async (scene) => {
  const { engine } = scene;
  const { generation } = engine;
  const commit = await codeOf(engine.say(0, 'commit', { generation, epoch: engine.open }));
  const rollback = await codeOf(engine.say(0, 'rollback', { generation, epoch: (await engine.state(0)).committed }));
  await goesOn(scene);
  return told(`commit ${commit}, rollback ${rollback}`, unless(commit !== 'accepted' && rollback !== 'accepted', 'one of them was done'));
};

/** h3 is taken over and wakes, fenced; then a takeover gives it members again, while it knows only the life before. */
const namesTheFenced: Play = async (scene) => {
  const { cluster, engine, life } = scene;
  const before = engine.generation;
  cluster.daemon(2).signal('SIGSTOP');
  const taken = await takeOver(scene, 2, () => 1);
  cluster.daemon(2).signal('SIGCONT');
  await until('h3 is fenced', async () => (await engine.state(2).catch(() => undefined))?.phase === 'fenced', WAIT_MS);
  const { generation } = engine;
  const old = await codeOf(engine.say(2, 'ack', { generation: before, epoch: (await engine.state(2)).open - 1 }));
  const unnamed = await codeOf(engine.say(2, 'cut', { generation, epoch: engine.open }));
  await sleep(GHOSTS_MS);
  life.silent.add(2); // as whoever gives it members again must see to
  await takeOver({ ...scene, ...taken }, 1, () => 2);
  await goesOn(scene);
  const { phase, generation: at } = await engine.state(2);
  return told(`the old ack ${old}, a cut in the generation without it ${unnamed}; named, it opens the new one by its own engine's takeover, without what it held`,
    unless(old === 'fenced' && unnamed === 'fenced', 'not both were refused'), unless(phase === 'protected' && at === generation + 1, `it is ${phase} in generation ${at}`));
};

/** Etcd is brought back from a backup that is some epochs old; a host that was there and one that starts anew would take over at one that the world has seen more of. */
const ledgerGoesBack: Play = async (scene) => {
  const { cluster: { bed, etcd, daemons }, engine } = scene;
  const [, second] = daemons;
  const file = join(bed.directory, `backup${engine.generation}`);
  await etcd.save(file);
  const saved = engine.committed;
  await until('epochs are committed beyond the backup', () => engine.committed >= saved + BEYOND_BACKUP, WAIT_MS);
  await engine.stop();
  const epoch = (await engine.state(1)).committed;
  const generation = engine.generation + 1;
  await etcd.restore(file);
  const there = await atEach(engine, generation, epoch);
  await second?.kill();
  await second?.start('live');
  await until('h2 has the ledger', async () => (await second?.api.call('GET', '/readyz'))?.status === 200, WAIT_MS);
  const anew = await atEach(engine, generation, epoch);
  engine.run();
  await goesOn(scene);
  return told(`takeovers at each epoch before the one that all had acked, by a host that was there: ${there}; by one that starts anew: ${anew}; every host says its acks again, and the group goes on in its generation`,
    unless(![there, anew].join().includes('accepted'), 'one was accepted'));
};
/** Of every epoch that is over: the codes, each once. */
async function atEach(engine: Scene['engine'], generation: number, before: number): Promise<string> {
  const codes = new Set<string>();
  for (let epoch = 0; epoch < before; epoch += 1) codes.add(await decided(() => engine.say(1, 'takeover', { generation, epoch })));
  return [...codes].join(', ');
}

/** Protection was begun again: the same members at the same taps, in a generation of their own. */
function livesAnew({ engine, traffic }: Scene, life: Life, generation: number): Life {
  traffic.end(life, 0);
  engine.beginAgain(generation);
  const next = traffic.expect(generation, life.speakers);
  for (const host of engine.hosts) traffic.arrive(next, host);
  next.silent.clear();
  engine.run();
  return next;
}
async function inGeneration({ engine }: Scene, generation: number): Promise<void> {
  for (const host of engine.hosts) await until(`h${host + 1} is in generation ${generation}`, async () => (await engine.state(host)).generation === generation, WAIT_MS);
}
async function stopped({ engine }: Scene, life: Life): Promise<void> {
  for (const host of engine.hosts) life.silent.add(host);
  await engine.stop();
}

/** The life beyond the backup is a second protection. The remedy: its VMs are stopped, and the group is protected again, in no generation that any host knows. */
const protectedAgain: Play = async (scene) => {
  const { cluster: { bed, etcd }, engine, life } = scene;
  const first = engine.generation;
  const file = join(bed.directory, `remedy${first}`);
  await etcd.save(file);
  await stopped(scene, life);
  await insist(() => engine.say(0, 'unprotect', { generation: first, held: 'discard' }));
  const { generation: second } = await insist(() => engine.say(0, 'protect', {}));
  await inGeneration(scene, second);
  const lost = livesAnew(scene, life, second);
  await goesOn(scene);
  await stopped(scene, lost);
  await etcd.restore(file);
  const codes = {
    'a takeover': await decided(() => engine.say(1, 'takeover', { generation: second + 1, epoch: 0 })),
    'the first one ended': await decided(() => engine.say(1, 'unprotect', { generation: first, held: 'discard' })),
    'protect with the number it had': await decided(() => engine.say(1, 'protect', { generation: second })),
  };
  for (const host of engine.hosts) await until(`h${host + 1} has ended it`, () => leaves(engine, host), WAIT_MS);
  const { generation: third } = await insist(() => engine.say(1, 'protect', {}));
  await inGeneration(scene, third);
  livesAnew(scene, lost, third);
  await goesOn(scene);
  const wanted = ['fenced', 'accepted', 'fenced'];
  return told(`${Object.entries(codes).map(([name, code]) => `${name}: ${code}`).join('; ')}; without a number it begins the one after the newest that this host knows, and goes on`,
    unless(Object.values(codes).join() === wanted.join(), `not ${wanted.join(', ')}`), unless(third === second + 1, `generation ${third} after ${second}`));
};

/** What it was fenced with is given up by its own word. */
async function leaves(engine: Scene['engine'], host: number): Promise<boolean> {
  const { phase, generation } = await engine.state(host);
  if (phase === 'fenced') await engine.say(host, 'unprotect', { generation, held: 'discard' }).catch(() => undefined); // asked again
  return phase === 'idle';
}

const ASKED: Readonly<Record<string, Play>> = {
  'two hosts take over at once, the old host wakes and acks': twoTakeovers,
  'a host cut off from the ledger takes over': cutOffTakesOver,
  'a takeover with wrong numbers': wrongNumbers,
  'two daemons of one name': sameName,
  'one host\'s engine commits or rolls back for all': oneHostAlone,
  'a takeover gives members to a host that is fenced': namesTheFenced,
  'etcd is brought back from an older backup': ledgerGoesBack,
  'etcd is brought back from before the protection, which is then begun again': protectedAgain,
};
const HAPPENED: Readonly<Record<string, Passing | Deadly>> = {
  'the old host was paused beyond its lease, taken over, and wakes': 'paused, taken over',
  'cut off from the ledger, taken over, its VMs speak on': 'ledger cut, taken over',
  'it hears nothing of the ledger and is heard, taken over': 'ledger deaf, taken over',
  'cut off from ledger and peers, taken over': 'both cut, taken over',
  'killed in a commit, taken over, and comes back': 'killed in commit',
  'its lease ran out, nobody took over, it wakes': 'sluiced paused',
  'etcd\'s majority is away': 'majority lost',
  'etcd\'s leader is paused, and wakes as one that thinks it leads': 'leader paused',
  'a host\'s wall clock jumps an hour': 'wall clock jumps',
  'a host\'s time since boot jumps': 'boot clock jumps',
  'tagged frames doubled, delayed, overtaken': 'wire mangled',
};
export const ATTEMPTS: readonly string[] = [...Object.keys(ASKED), ...Object.keys(HAPPENED)];

const faultsOf = ({ leaked, orphans, old, refused }: Pick<Outcome, 'leaked' | 'orphans' | 'old' | 'refused'>): string[] =>
  Object.entries({ leaked, orphans, 'of an old generation': old, 'refused by the kernel\'s bound': refused }).flatMap(([what, n]) => (n === 0 ? [] : [`${n} ${what}`]));

export async function attempt(arena: Arena, name: string, random: () => number): Promise<Tried> {
  const play = ASKED[name];
  if (play !== undefined) return asked(arena, name, play, random);
  const fault = HAPPENED[name];
  if (fault === undefined) throw new Error(`no attempt ${name}`);
  const outcome = await arena.run({ fault, random });
  const { ghosts, backMs, takeoverMs } = outcome;
  const said = takeoverMs === undefined ? `holds, and goes on ${backMs.toFixed(0)} ms after it is over` : `fenced, its engine's cut too; ${ghosts} frames of its VMs discarded`;
  return { attempt: name, outcome: said, faults: faultsOf(outcome) };
}

async function asked(arena: Arena, name: string, play: Play, random: () => number): Promise<Tried> {
  const scene = await arena.begin(random, seated(HOMES));
  const { engine, traffic, oracle } = scene;
  try {
    engine.run();
    await until('epochs are committed', () => engine.committed >= WARM_EPOCHS, WAIT_MS);
    const { said, wrong } = await play(scene);
    await finish(engine, traffic, oracle);
    const refused = (await Promise.all(engine.hosts.map((host) => engine.state(host)))).reduce((sum, { dropped }) => sum + dropped.refused, 0);
    const seen = judged(scene);
    return { attempt: name, outcome: seen.ghosts === 0 ? said : `${said}; ${seen.ghosts} frames of the old VMs discarded`, faults: [...wrong, ...faultsOf({ ...seen, refused })] };
  } finally {
    await arena.end(scene);
  }
}
