/**
 * The demonstration of a group across hosts: three hosts, one group, and everything that can go.
 *
 *   m1 m2 @h1     m3 @h2     m4 @h3      a switch, a ledger of three etcd nodes, an outsider
 *
 *   epochs ─ etcd's leader killed ─ h3 cut off from the ledger ─ h1 killed, its members taken over by
 *   h2 and h3 ─ h1 wakes, and its VMs speak on
 *
 * Numbered frames go all along, inside and out; what the outsider captures is compared with the times
 * of the acks. Prints the timeline as it happens, then the figures; writes out/demo-hosts.json. Exit 1
 * where anything leaked, was an orphan, or came from the old generation. Leaves nothing behind.
 */
import { abandonOnSignal } from './bed/abandon.ts';
import { ApiRefusal } from './bed/api.ts';
import { Cluster } from './bed/cluster.ts';
import { sleep, until } from './bed/commands.ts';
import { nowUs } from './bed/libc.ts';
import { Oracle } from './bed/oracle.ts';
import { HostsEngine } from './hosts/engine.ts';
import { GROUP, finish, groupFile, members, speakers, type Seat } from './hosts/story.ts';
import { HostsTraffic, type Life } from './hosts/traffic.ts';
import { mustBeRoot, tableText, tenth, writeOut } from './vm/report.ts';

const SETTLE_MS = 500;
const ELECTION_MS = 3000;
/** h1 (0), h2 (1), h3 (2); the last two are the standbys of m1 and m2. */
const TAPS = [0, 0, 1, 2, 1, 2];
const BEFORE: readonly Seat[] = [0, 1, 2, 3].map((tap, is) => ({ is, tap }));
const AFTER: readonly Seat[] = [4, 5, 2, 3].map((tap, is) => ({ is, tap }));
const DEAD = 0;
const CUT_OFF = 2;

interface Story {
  readonly cluster: Cluster;
  readonly oracle: Oracle;
  readonly engine: HostsEngine;
  readonly traffic: HostsTraffic;
  readonly say: (text: string) => void;
}
interface Steady { readonly epochsPerS: number; readonly gapMs: number }
interface Leader { readonly gapMs: number }
interface CutOff { readonly cutOffMs: number; readonly commits: number; readonly beyond: number; readonly outside: number; readonly piledUp: number; readonly backMs: number }
interface Death { readonly takeoverMs: number; readonly firstOutsideMs: number; readonly epoch: number; readonly etcdLed: boolean }
interface Ghost { readonly sent: number; readonly phase: string; readonly code: string; readonly epochsPerS: number }

async function steady({ engine, traffic, say }: Story): Promise<Steady> {
  await until('commits have begun', () => engine.committed > 5);
  engine.gapMs();
  const [from, seen, beganUs] = [engine.committed, traffic.outsideSeen, nowUs()];
  await sleep(4000);
  const seconds = (nowUs() - beganUs) / 1e6;
  const figures = { epochsPerS: (engine.committed - from) / seconds, gapMs: engine.gapMs() };
  say(`${engine.committed - from} epochs committed in ${seconds.toFixed(1)} s, ${traffic.outsideSeen - seen} frames let out; the longest wait for a commit was ${figures.gapMs.toFixed(0)} ms`);
  return figures;
}

async function leaderKilled({ cluster, engine, say }: Story): Promise<Leader> {
  const leader = await cluster.etcd.leader();
  engine.gapMs();
  const before = engine.committed;
  await cluster.etcd.kill(leader);
  say(`etcd's leader, on h${leader + 1}, is killed`);
  await sleep(4000);
  await until('commits go on', () => engine.committed > before + 20, 20_000);
  const gapMs = engine.gapMs();
  say(`the other two have chosen a new one: ${gapMs.toFixed(0)} ms without a commit, then epochs go on`);
  cluster.etcd.startNode(leader);
  await until('etcd is whole again', () => cluster.etcd.ctl(['endpoint', 'health']).then(() => true, () => false), 20_000);
  return { gapMs };
}

async function cutOff({ cluster, engine, traffic, say }: Story): Promise<CutOff> {
  const isLeader = await cluster.etcd.leader() === CUT_OFF;
  await cluster.ledger(CUT_OFF, false);
  const [beganUs, first] = [nowUs(), engine.open + 1]; // h3's ack of an epoch from here on is in no ledger
  say(`h3 is cut off from the ledger${isLeader ? ', and etcd of its leader' : ''}: it hears no acks, and nobody hears its own`);
  await sleep(isLeader ? ELECTION_MS : SETTLE_MS); // acks that were under way arrive
  traffic.drain();
  const [outside, before] = [traffic.outsideSeen, (await engine.state(1)).committed];
  await sleep(3000);
  traffic.drain();
  const after = (await engine.state(1)).committed;
  const seen = traffic.outsideSeen - outside;
  const piledUp = engine.open - 1 - after;
  say(`3 s later: ${after - before} commits, ${seen} frames let out; the engine went on, ${piledUp} epochs wait`);
  await cluster.ledger(CUT_OFF, true);
  const backUs = nowUs();
  await until('all is committed', () => engine.committed >= after + piledUp, 20_000);
  const backMs = (nowUs() - backUs) / 1e3;
  say(`h3 is back: what had waited is committed ${backMs.toFixed(0)} ms later, epochs go on`);
  return { cutOffMs: (backUs - beganUs) / 1e3, commits: after - before, beyond: Math.max(0, after - first + 1), outside: seen, piledUp, backMs };
}

async function hostKilled({ cluster, engine, traffic, say }: Story, life: Life): Promise<Death> {
  await sleep(1000); // what had piled up is outside
  const ledAt = await cluster.etcd.leader();
  const killedUs = nowUs();
  await Promise.all([cluster.daemon(DEAD).kill(), cluster.etcd.kill(DEAD), cluster.ports(DEAD, false)]);
  for (const host of [0, 1, 2]) life.silent.add(host);
  say(`h1 is killed: its sluiced, its etcd node${ledAt === DEAD ? ', which led' : ''}, the ports of m1 and m2; the other VMs are stopped to go back`);
  await engine.stop();
  engine.failure = undefined; // h1 did not answer: that is how an engine learns of it
  traffic.drain();
  const homes = speakers(cluster, AFTER);
  const next = traffic.expect(2, homes);
  engine.at = (step, host) => {
    if (step !== 'opened' || host === undefined) return;
    if (life.endedAt === undefined) traffic.end(life, engine.open - 1);
    traffic.arrive(next, host);
  };
  const epoch = await engine.takeover(members(cluster, AFTER), homes);
  const takeoverMs = (nowUs() - killedUs) / 1e3;
  next.silent.clear();
  engine.run();
  say(`generation 2 goes on from epoch ${epoch}, ${takeoverMs.toFixed(0)} ms after the kill: m1 at h2, m2 at h3`);
  await until('generation 2 is heard outside', () => traffic.firstOutsideUs.has(2), 20_000);
  const firstOutsideMs = ((traffic.firstOutsideUs.get(2) ?? Number.NaN) - killedUs) / 1e3;
  say(`its first frame is outside ${firstOutsideMs.toFixed(0)} ms after the kill`);
  await sleep(2000);
  return { takeoverMs, firstOutsideMs, epoch, etcdLed: ledAt === DEAD };
}

async function hostWakes({ cluster, engine, traffic, say }: Story, life: Life): Promise<Ghost> {
  cluster.etcd.startNode(DEAD);
  await cluster.daemon(DEAD).start('live');
  life.silent.delete(DEAD);
  await cluster.ports(DEAD, true);
  say('h1 wakes as if nothing had happened: its sluiced runs, its old m1 and m2 speak in generation 1');
  await until('h1 is fenced', async () => (await engine.state(DEAD).catch(() => undefined))?.phase === 'fenced', 20_000);
  const from = engine.committed;
  const beganUs = nowUs();
  const code = await engine.say(DEAD, 'cut', { generation: 1, epoch: engine.open }).then(() => 'accepted', (error: unknown) => error instanceof ApiRefusal ? error.code : String(error));
  await sleep(3000);
  const epochsPerS = (engine.committed - from) / ((nowUs() - beganUs) / 1e6);
  const { phase } = await engine.state(DEAD);
  say(`h1 is ${phase}; a cut of its old engine is answered '${code}'; of ${traffic.ghosts} frames of its old VMs ${traffic.oldDelivered} arrived anywhere`);
  return { sent: traffic.ghosts, phase, code, epochsPerS };
}

async function play(story: Story): Promise<boolean> {
  const { cluster, engine, traffic, oracle, say } = story;
  const homes = speakers(cluster, BEFORE);
  await engine.protect(groupFile(cluster, BEFORE), homes);
  say('three hosts, a switch, three etcd nodes, an outsider; one group: m1 and m2 on h1, m3 on h2, m4 on h3; protected');
  const life = traffic.begin(1, homes);
  traffic.run();
  engine.run();
  const plain = await steady(story);
  const leader = await leaderKilled(story);
  const off = await cutOff(story);
  if (engine.failure !== undefined) throw engine.failure;
  const death = await hostKilled(story, life);
  const ghost = await hostWakes(story, life);
  await finish(engine, traffic, oracle);
  const [probes, inside] = [oracle.count(), traffic.inside()];
  const json = {
    hosts: 3, epochsPerS: tenth(plain.epochsPerS), leaderKilledNoCommitMs: tenth(leader.gapMs), cutOff: off, takeover: death, ghost,
    probes, unseenByHost: [0, 1, 2].map((host) => traffic.unseen(host)), inside, leaked: probes.leaked, orphans: traffic.orphans, oldDelivered: traffic.oldDelivered, olds: traffic.olds,
  };
  writeOut('demo-hosts.json', json);
  console.log(`\n${tableText([
    ['epochs committed, undisturbed', `${json.epochsPerS} a second, longest wait ${plain.gapMs.toFixed(0)} ms`],
    ['etcd leader killed', `${leader.gapMs.toFixed(0)} ms without a commit`],
    [`a host cut off from the ledger, ${(off.cutOffMs / 1e3).toFixed(1)} s`, `${off.commits} commits, ${off.outside} frames let out; all ${off.piledUp} epochs committed ${off.backMs.toFixed(0)} ms after its return`],
    ['a host killed, to generation 2 open everywhere', `${death.takeoverMs.toFixed(0)} ms, from epoch ${death.epoch}${death.etcdLed ? '; etcd chose a leader too' : ''}`],
    ['a host killed, to the first frame of generation 2 outside', `${death.firstOutsideMs.toFixed(0)} ms`],
    ['the killed host wakes', `${ghost.phase}; its engine is answered '${ghost.code}'; the group goes on at ${ghost.epochsPerS.toFixed(1)} epochs a second`],
    ['frames inside', `${inside.delivered} of ${inside.sent} delivered`],
    ['frames to the outside, judged by the oracle', `${probes.seen} of ${probes.sent} let out, ${probes.held} discarded with the old execution, ${probes.lost} whose ack was asked of all hosts and which were lost (never seen: ${json.unseenByHost.map((count, i) => `${count} of h${i + 1}`).join(', ')})`],
    ['leaked', String(json.leaked)],
    ['orphans', String(json.orphans)],
    [`old-generation frames delivered, of ${ghost.sent} sent`, String(json.oldDelivered)],
  ])}\n\n  out/demo-hosts.json`);
  return json.leaked + json.orphans + json.oldDelivered + off.beyond === 0 && (off.commits > 0 || off.outside === 0) && ghost.phase === 'fenced' && ghost.code === 'fenced';
}

async function main(): Promise<void> {
  mustBeRoot('the demonstration');
  abandonOnSignal();
  const began = performance.now();
  const say = (text: string): void => console.log(`  ${((performance.now() - began) / 1e3).toFixed(2).padStart(6)} s  ${text}`);
  console.log('one group on three hosts: whatever fails, nothing uncommitted is seen outside, and the group goes on\n');
  const cluster = await Cluster.create({ hosts: 3, members: TAPS.map((host) => ({ kind: 'tap', host })) });
  const oracle = new Oracle();
  const engine = new HostsEngine(cluster, oracle, GROUP);
  const { bed } = cluster;
  const traffic = new HostsTraffic(oracle, bed.outside(), bed.outsider.address, engine.bounds);
  try {
    if (!(await play({ cluster, oracle, engine, traffic, say }))) throw new Error('something came out that must not, or a fence did not hold: see the table');
  } finally {
    traffic.stop();
    await engine.stop();
    await cluster.close();
  }
}

await main().catch((error: unknown) => {
  console.error(`demo-hosts: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
