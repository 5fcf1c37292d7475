/**
 * Composition root of sluiced: makes the parts, in the order in which each can rely on the last,
 * and takes them down in the reverse order.
 *
 *     privileges, socket free ─► state directory locked, journal read ─► kernel programs over the
 *     pins ─► hold worker ─► groups taken up again ─► API listens ─► ready
 *
 * A failure on the way takes down what was made; what an earlier life left protected stays as it
 * is. So does `stop`: a protected group stays protected in the kernel (D12).
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import type { Logger } from 'pino';
import { acrossView, apiControl, nowMs, peersOf, portStats, publish, relay, relayGate, relayPeers } from './adapt.ts';
import { Access } from './api/access.ts';
import { Audit } from './api/audit.ts';
import type { AppOptions, buildApp as build } from './api/app.ts';
import type { App } from './api/commands.ts';
import type { AcrossView } from './api/across.ts';
import type { ApiDeps } from './api/deps.ts';
import { EventHub } from './api/events.ts';
import { Metrics } from './api/metrics.ts';
import { ConfigError, type Config } from './config.ts';
import { Control } from './control/control.ts';
import { maybeHurryAll } from './edge/ffi/libc.ts';
import type { EtcdLedger } from './edge/etcd-ledger.ts';
import type { EtcdTls } from './edge/etcd-tls.ts';
import { JournalFile } from './edge/journal-file.ts';
import { Netlink } from './edge/netlink.ts';
import { openPlane, packageFile } from './gate.ts';
import { CLOSED_FILE, IsolationWatch } from './isolation.ts';
import { peerName } from './edge/peer.ts';
import { clearStale, listenTcp, listenUnix, readAgain, tcpOptions } from './listen.ts';
import type { Log } from './logging.ts';
import { EdgeError } from './ports.ts';
import type { JournalRecord } from './ports.ts';
import { checkCapabilities, checkKernel } from './preflight.ts';
import { readHooks, tell } from './told.ts';
import { checkState, readPublic, readSecret } from './trust.ts';

export interface Daemon {
  /** Reads tokens and certificates again. Throws, and goes on with the old ones, where they are not right. */
  reload(): void;
  /** Answers everyone and lets go of everything but what protected groups need. */
  stop(): Promise<void>;
}

/** Connections still busy this long after the end began are cut, and what is in flight is not waited for. */
const CLOSE_MS = 3000;
/** The socket's name goes first: who had connected by then is let in and answered, not reset. */
const LAST_IN_MS = 20;
/** How often it is looked whether the groups of the journal are attached again. */
const SETTLE_MS = 250;

/** VMs stand still while a cut is answered: on a busy host the API goes before their load (D22). */
const NICE = -10;

const LOSSES_MS = 1000;
const PEERS_MS = 250;

type Undo = () => Promise<void> | void;

export async function startDaemon(config: Config, log: Log, version: string, fatal: (error: unknown) => void): Promise<Daemon> {
  const which = config.pcap === undefined ? 'ebpf' : 'pcap';
  checkKernel(which);
  checkCapabilities(which);
  maybeHurryAll(NICE);
  await clearStale(config.control.socket);
  checkState('state', config.state);
  if (config.hooks !== undefined) readHooks(config.hooks, config.host); // wrong files are said before anything is touched
  const tcp = config.control.tcp === undefined ? undefined : tcpOptions(config.control.tcp); // wrong ones are said before anything is touched
  const undo: Undo[] = [];
  const stop = async (): Promise<void> => {
    for (let last = undo.pop(); last !== undefined; last = undo.pop()) await last();
  };
  try {
    const reload = await compose(config, { log, version, fatal, tcp }, undo);
    return { stop, reload };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Around {
  readonly log: Log;
  readonly version: string;
  readonly fatal: (error: unknown) => void;
  readonly tcp: AppOptions | undefined;
}

/** Returns what reads tokens, certificates and the hooks' secret again. */
async function compose(config: Config, around: Around, undo: Undo[]): Promise<() => void> {
  const { version, fatal } = around;
  const log = around.log.logger;
  const journal = JournalFile.open(config.state, { onTorn: (bytes) => log.warn({ bytes }, 'the journal had a torn tail, as a kill or a power cut leaves it; it was cut off') });
  undo.push(() => journal.close());
  const records = await journal.load();
  const dataPlane = openPlane(config, hashOf(realpathSync(config.state)));
  const { gate, keeper, announcer, attach, kept } = dataPlane;
  undo.push(() => dataPlane.close(), () => keeper.close());
  mustBeJournalled(keeper.leftovers, records, kept, config.state);
  const plane = dataPlane.start();
  undo.push(() => plane.stop());
  const [{ buildApp }] = await Promise.all([import('./api/app.ts'), plane.close(0)]); // its first answer: it runs, and has the pinned maps in its memory; what is read from disk meanwhile is not waited for after it
  const events = new EventHub(randomBytes(4).toString('hex'));
  const told = tell(config, events, log); // ends after control: what happened last is told too
  if (told !== undefined) undo.push(() => told.stop());
  const named: NameWatch = { onClash: fatal };
  const ledger = await openLedger(config, log, named);
  if (ledger !== undefined) undo.push(() => ledger.close());
  const isolation: { watch?: IsolationWatch | undefined } = {};
  const control = new Control({
    journal, plane, gate, announcer, ...(ledger === undefined ? {} : { ledger }),
    trouble: (group, error) => log.error({ group, code: error.code, fix: error.fix }, error.message),
    isolated: () => isolation.watch?.refusal(),
  });
  undo.push(() => closeControl(control));
  control.onFatal(fatal);
  const seen = apiControl(control, plane, ledger);
  relay(control, (group) => seen.counters(group), events, log);
  keeper.onEvent(relayGate(control, events, log));
  await startLedger(ledger, named);
  for (const { group, error } of await control.start(records)) log.error({ group, code: error.code, fix: error.fix }, error.message);
  undo.push(await settleWhenWhole(control, keeper, dataPlane, log), watchLosses(() => dataPlane.lost(), log));
  isolation.watch = watchIsolation(config, control, events, log, undo);
  if (ledger !== undefined) undo.push(watchPeers(control, ledger, events, log));
  keeper.start();
  const missing = (): string[] => [...control.missing(), ...control.behind(), ...keeper.ready(), ...dataPlane.missing(), ...(journal.writable ? [] : ['the journal can\'t be written']), ...(ledger?.ok === false ? ['the ledger (etcd) can\'t be reached: groups across hosts hold and commit nothing'] : []), ...(isolation.watch?.missing() ?? [])];
  const across = ledger === undefined ? undefined : (): AcrossView => ({ ...acrossView(control, ledger), ...optional('isolation', isolation.watch?.view()) });
  const metrics = new Metrics({
    groups: () => control.list().map((state) => ({ state, counters: seen.counters(state.spec.group), hosts: seen.hosts(state.spec.group) ?? [] })),
    ...optional('across', across),
    ports: () => portStats(control, keeper.stats()),
    eventClients: () => events.subscribers - (told === undefined ? 0 : 1),
    hooks: () => told?.link.counts() ?? new Map(),
    planeLost: () => dataPlane.lost(),
  });
  const audit = new Audit(around.log.audit);
  undo.push(() => audit.close());
  const readTcpAgain = await serve(config, { control: seen, events, metrics, log, audit, version, host: config.host, health: { missing }, ...optional('across', across) }, { control, buildApp, tcp: around.tcp }, undo);
  log.info({ version, groups: records.length, socket: config.control.socket, kept, attach }, 'ready');
  return () => {
    const tls = config.ledger === undefined ? undefined : readLedgerTls(config.ledger); // before anything is exchanged
    readTcpAgain?.();
    if (tls !== undefined) ledger?.show(tls);
    told?.again();
  };
}

/** What is wrong with them is one line with its fix, as for the files of control.tcp. */
function readLedgerTls({ tls }: NonNullable<Config['ledger']>): EtcdTls | undefined {
  if (tls === undefined) return undefined;
  const shown = {
    ca: readPublic('ledger.etcd.tls.ca', tls.ca),
    cert: tls.cert === undefined ? undefined : readPublic('ledger.etcd.tls.cert', tls.cert),
    key: tls.key === undefined ? undefined : readSecret('ledger.etcd.tls.key', tls.key),
  };
  try {
    createSecureContext(shown);
  } catch (error) {
    throw new ConfigError(`the files of ledger.etcd.tls don't fit together or are not PEM (${error instanceof Error ? error.message : String(error)}); give a certificate and its own key`);
  }
  return shown;
}

interface NameWatch {
  onClash: (error: Error) => void;
}

/** The same in the daemon's next life (one daemon a state directory), and no other machine's or container's. */
function ownerOf(state: string): string {
  const { dev, ino } = statSync(state);
  return hashOf([readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(), realpathSync(state), dev, ino].join(' '));
}

/** A name that another daemon has is refused before anything is written under it. */
async function startLedger(ledger: EtcdLedger | undefined, named: NameWatch): Promise<void> {
  if (ledger === undefined) return;
  const later = named.onClash;
  let clash: Error | undefined;
  named.onClash = (error) => (clash = error);
  await ledger.start();
  if (clash !== undefined) throw clash;
  named.onClash = later;
}

/** Of a host alone only what an earlier life has closed, when it had others, is opened again. */
function watchIsolation(config: Config, control: Control, hub: EventHub, log: Logger, undo: Undo[]): IsolationWatch | undefined {
  if (config.ledger === undefined && !existsSync(join(config.state, CLOSED_FILE))) return undefined;
  const switches = new Netlink();
  const watch = new IsolationWatch({
    config: config.isolation, self: config.host, state: config.state, switches, log,
    groups: () => control.list(),
    tell: (type) => publish(hub, log, { type, atMs: nowMs(), host: config.host }),
  });
  undo.push(() => switches.close(), () => watch.close());
  return watch;
}

function watchPeers(control: Control, ledger: EtcdLedger, hub: EventHub, log: Logger): Undo {
  const timer = setInterval(relayPeers(() => peersOf(control, ledger), hub, log), PEERS_MS).unref();
  return () => clearInterval(timer);
}

/** A host alone does not load the client: it would be an eighth of what the start costs. */
async function openLedger({ host, ledger, state }: Config, log: Logger, named: NameWatch): Promise<EtcdLedger | undefined> {
  if (ledger === undefined) return undefined;
  const { EtcdLedger, LEASE_S } = await import('./edge/etcd-ledger.ts');
  return new EtcdLedger({
    ...ledger,
    tls: readLedgerTls(ledger),
    self: host,
    owner: ownerOf(state),
    onState: (ok, why) => (ok ? log.info({}, 'the ledger is there again') : log.error({}, why)),
    onOdd: (key) => log.error({ key }, 'what stands there in the ledger no host wrote: its group holds and commits nothing; put the right value back'),
    onFilling: (bytes) => log.error({ bytes }, 'etcd\'s file is half full: it keeps every ack until it is compacted, and takes none any more when it is full; start each node with --auto-compaction-mode periodic --auto-compaction-retention 5m'),
    onWentBack: (was, is) => log.error({ was, is }, 'the ledger (etcd) went back to an older revision: was it brought back from a backup? Groups across hosts take up nothing that is older than they know; see troubleshooting, "the ledger went back"'),
    onClash: () => named.onClash(new EdgeError('ledger_down', `the host name ${host} is in use in the ledger by another sluiced`, `give each its own name (host: in its settings); where this one takes the other's place, end that one: its lease runs out after ${LEASE_S} s`)),
  });
}

/**
 * A group that the kernel still holds and the journal does not know: its journal is lost. Nothing
 * of it may be cleared away then. (A group leaves the journal only after it has left the kernel.)
 */
function mustBeJournalled(leftovers: ReadonlySet<number>, records: readonly JournalRecord[], pins: string, state: string): void {
  const known = new Set(records.map(({ id }) => id));
  const lost = [...leftovers].filter((id) => !known.has(id));
  if (lost.length === 0) return;
  throw new EdgeError(
    'journal_failed',
    `${lost.length} protected ${lost.length === 1 ? 'group of the kernel is' : 'groups of the kernel are'} not in the journal of ${state}: it is lost; what is protected stays held`,
    `restore the journal or mount its file system; or, when the VMs of all groups are stopped, rm -r ${pins} and protect again`,
  );
}

/**
 * What an earlier life left in the kernel is cleared away only when every group of the journal is
 * attached again: until then it is what keeps a group holding. The portable plane switches nothing
 * before that. Returns what ends the waiting.
 */
async function settleWhenWhole(control: Control, keeper: { settle(): Promise<void> }, dataPlane: { begin(): Promise<void> }, log: Logger): Promise<Undo> {
  const settle = async (): Promise<void> => {
    await keeper.settle();
    await dataPlane.begin();
  };
  if (control.missing().length === 0) {
    await settle();
    return () => undefined;
  }
  const timer = setInterval(() => {
    if (control.missing().length > 0) return;
    clearInterval(timer);
    settle().catch((error: unknown) => log.error({ err: error }, 'what an earlier life left could not be cleared away'));
  }, SETTLE_MS);
  return () => clearInterval(timer);
}

/** What the plane lost since the last look, where it lost anything: a line a second at most. */
function watchLosses(lost: () => Readonly<Record<string, number>>, log: Logger): Undo {
  let before = lost();
  const timer = setInterval(() => {
    const now = lost();
    const rose = Object.entries(now).flatMap(([why, frames]) => (frames > (before[why] ?? 0) ? [[why, frames - (before[why] ?? 0)] as const] : []));
    before = now;
    if (rose.length > 0) log.warn({ frames: Object.fromEntries(rose) }, 'frames were lost at the ports');
  }, LOSSES_MS).unref();
  return () => clearInterval(timer);
}

async function serve(config: Config, deps: ApiDeps, by: { control: Control; buildApp: typeof build; tcp: AppOptions | undefined }, undo: Undo[]): Promise<(() => void) | undefined> {
  const { control, buildApp } = by;
  const { socket, group, tcp } = config.control;
  const page = packageFile('dist/checkpoint-hooks');
  const local = await buildApp(deps, { access: Access.open(peerName), page });
  undo.push(async () => {
    rmSync(socket, { force: true });
    await delay(LAST_IN_MS);
    await closeApp(local, control);
  });
  await listenUnix(local, socket, group);
  if (tcp === undefined || by.tcp === undefined) return undefined;
  const remote = await buildApp(deps, { ...by.tcp, ...(tcp.ui === true ? { page } : {}) });
  undo.push(() => closeApp(remote, control));
  await listenTcp(remote, tcp.listen);
  const { access } = by.tcp;
  return () => readAgain(tcp, access, remote.server);
}

/** Both at once: requests in flight end only when control has answered them. */
async function closeApp(app: App, control: Control): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_MS);
  await Promise.all([app.close(), closeControl(control)]);
  clearTimeout(timer);
}

/** What the hold loop is still asked by then (a drain of much) is answered by its end, which is next. */
async function closeControl(control: Control): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const enough = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_MS);
  });
  await Promise.race([control.close(), enough]);
  clearTimeout(timer);
}

const optional = <K extends string, T>(key: K, value: T | undefined): { readonly [P in K]?: T } => (value === undefined ? {} : { [key]: value } as { readonly [P in K]: T });

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 12);
