/**
 * Prometheus metrics. The figures are counted elsewhere (hold loop, kernel, core); a scrape reads
 * them where they are, so a metric costs nothing between scrapes. Counted here are only the API's
 * own: commands by duration, refusals by code, event clients that were too slow.
 *
 * Names begin with `sluice_`, units are base units (seconds, bytes). Must stay 0 in any healthy
 * system: sluice_leak_blocked_frames_total, sluice_release_refused_frames_total.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from '../doors/metrics.ts';
import type { GroupState } from '../core/types.ts';
import { HOLD_BUCKETS_MS, WIRE_BUCKETS_MS } from '../ports.ts';
import type { HoldCounters } from '../ports.ts';
import type { AcrossView, HostFigures } from './across.ts';
import type { ErrorCode } from './contract.ts';
import { addHosts } from './metrics-hosts.ts';

export interface FrameCount {
  readonly frames: number;
  readonly bytes: number;
}
/** The classifier's counters of one device: a member's port, or another port of its bridge. */
export interface PortStats {
  readonly port: string;
  /** '' for a port of no group. */
  readonly group: string;
  readonly in: FrameCount;
  readonly verdict: Readonly<Record<string, FrameCount>>;
  readonly splitCopies: number;
  readonly leakBlocked: number;
  readonly unvetted: number;
  readonly confined: number;
  readonly duplicate: number;
  readonly refused: number;
  readonly redelivered: number;
  readonly remote: number;
  readonly stale: number;
  readonly unknown: number;
  readonly foreign: number;
  readonly elsewhere: number;
  readonly skewed: number;
  readonly forged: number;
}
export interface MetricsSource {
  groups(): readonly { readonly state: GroupState; readonly counters: HoldCounters | undefined; readonly hosts?: readonly HostFigures[] }[];
  ports(): readonly PortStats[];
  /** Where groups may span hosts. */
  readonly across?: () => AcrossView;
  eventClients(): number;
  /** Frames that ended for a reason of the data plane's own, by reason; they only grow. */
  planeLost(): Readonly<Record<string, number>>;
  /** Events given to each hook, by what became of them. */
  hooks?(): ReadonlyMap<string, Readonly<Record<string, number>>>;
}

type Row<T> = readonly [name: string, help: string, pick: (from: T) => number];

const HOLD_GAUGES: readonly Row<HoldCounters>[] = [
  ['sluice_held_frames', 'Frames held now', (c) => c.heldFrames],
  ['sluice_held_bytes', 'Bytes of frames held now', (c) => c.heldBytes],
  ['sluice_held_oldest_seconds', 'Age of the oldest held frame', (c) => c.oldestMs / 1000],
  ['sluice_hold_occupancy_ratio', 'Share of the tightest bound of the hold ring in use', (c) => c.occupancy],
];
const HOLD_COUNTERS: readonly Row<HoldCounters>[] = [
  ['sluice_arrived_frames_total', 'Frames that reached the hold ring', (c) => c.arrived],
  ['sluice_arrived_bytes_total', 'Bytes that reached the hold ring', (c) => c.arrivedBytes],
  ['sluice_released_frames_total', 'Held frames handed to the kernel after their commit', (c) => c.releasedFrames],
  ['sluice_released_bytes_total', 'Bytes of released frames', (c) => c.releasedBytes],
  ['sluice_discarded_frames_total', 'Held frames of executions that were rolled back', (c) => c.discardedFrames],
  ['sluice_overflow_frames_total', 'Frames dropped because the hold ring was full', (c) => c.overflowFrames],
  ['sluice_send_refused_frames_total', 'Released frames given up after the kernel kept refusing them', (c) => c.refusedFrames],
  ['sluice_early_frames_total', 'Intra-group frames that waited for their receiver (I2)', (c) => c.earlyFrames],
  ['sluice_late_recorded_frames_total', 'In-transit frames recorded for a rollback (I3)', (c) => c.lateRecorded],
  ['sluice_redelivered_frames_total', 'Recorded in-transit frames delivered again', (c) => c.redelivered],
];
const EPOCHS: readonly Row<GroupState>[] = [
  ['open', '', (s) => s.sealed + 1],
  ['sealed', '', (s) => s.sealed],
  ['acked', '', (s) => s.acked],
  ['committed', '', (s) => s.committed],
  ['released', '', (s) => s.released],
];
const PORT_COUNTERS: readonly Row<PortStats>[] = [
  ['sluice_port_split_copies_total', 'Copies of broadcast and multicast frames given to members', (p) => p.splitCopies],
  ['sluice_leak_blocked_frames_total', 'Unreleased frames of a member stopped at another port; must stay 0', (p) => p.leakBlocked],
  ['sluice_unvetted_frames_total', 'Frames stopped that came from a port not looked at yet', (p) => p.unvetted],
  ['sluice_confined_frames_total', 'Intra-group frames stopped at a port outside their group', (p) => p.confined],
  ['sluice_duplicate_frames_total', 'Released multicast a member already had', (p) => p.duplicate],
  ['sluice_release_refused_frames_total', 'Frames the kernel refused to release; must stay 0', (p) => p.refused],
  ['sluice_port_redelivered_frames_total', 'In-transit frames delivered again at this device', (p) => p.redelivered],
  ['sluice_remote_frames_total', 'Frames and split copies of this port sent to members on other hosts', (p) => p.remote],
  ['sluice_wire_stale_frames_total', 'Frames of another generation, dropped at the uplink or the VXLAN device', (p) => p.stale],
  ['sluice_wire_unknown_frames_total', 'Frames between hosts of no group here or without a colour, dropped at the uplink or the VXLAN device', (p) => p.unknown],
  ['sluice_wire_foreign_frames_total', 'Frames that claimed an address they could not have, dropped at the uplink or the VXLAN device', (p) => p.foreign],
  ['sluice_wire_elsewhere_frames_total', 'Frames between hosts for a member that is not here, dropped at the uplink or the VXLAN device', (p) => p.elsewhere],
  ['sluice_wire_skewed_frames_total', 'Frames too many epochs away from their receiver', (p) => p.skewed],
  ['sluice_wire_forged_frames_total', 'Frames with a group\'s outer tag, or for another host by VXLAN, that no classifier sent, stopped at a port', (p) => p.forged],
];

interface ReadyCounts {
  readonly group: string;
  readonly counts: readonly number[];
  readonly sumSeconds: number;
}

/**
 * A histogram whose buckets were counted elsewhere: it only shows them. `#frame` is an ordinary one
 * that gives the parts which are the same for all (name, help, type).
 */
class ReadyHistogram extends Histogram<'group' | 'le'> {
  readonly #name: string;
  readonly #frame: Histogram<'group' | 'le'>;
  readonly #boundsSeconds: readonly number[];
  readonly #read: () => readonly ReadyCounts[];

  constructor(name: string, help: string, boundsSeconds: readonly number[], read: () => readonly ReadyCounts[]) {
    const configuration = { name, help, registers: [], labelNames: ['group' as const] };
    super(configuration);
    this.#name = name;
    this.#frame = new Histogram(configuration);
    this.#boundsSeconds = boundsSeconds;
    this.#read = read;
  }

  /** What prom-client's registry calls; `get` is for its other readers. */
  getForPromString(): ReturnType<Histogram<'group' | 'le'>['get']> {
    return this.get();
  }

  override async get(): ReturnType<Histogram<'group' | 'le'>['get']> {
    return { ...(await this.#frame.get()), values: this.#read().flatMap((one) => this.#lines(one)) };
  }

  #lines({ group, counts, sumSeconds }: ReadyCounts): { metricName: string; labels: { group: string; le?: string }; value: number }[] {
    let total = 0;
    const buckets = counts.map((count, i) => {
      total += count;
      return { metricName: `${this.#name}_bucket`, labels: { le: String(this.#boundsSeconds[i] ?? '+Inf'), group }, value: total };
    });
    return [
      ...buckets,
      { metricName: `${this.#name}_sum`, labels: { group }, value: sumSeconds },
      { metricName: `${this.#name}_count`, labels: { group }, value: total },
    ];
  }
}

export class Metrics {
  readonly registry = new Registry();
  readonly #source: MetricsSource;
  readonly #commands: Histogram<'command'>;
  /** Of the kinds there are, each once: to find it by its label is what an observation costs most. */
  readonly #byCommand = new Map<string, { observe(seconds: number): void }>();
  readonly #refusals: Counter<'code'>;
  readonly #slowClients: Counter;

  constructor(source: MetricsSource) {
    this.#source = source;
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    this.#commands = new Histogram({
      name: 'sluice_command_seconds',
      help: 'Commands from the parsed request to the answer',
      labelNames: ['command'],
      buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1],
      registers,
    });
    this.#refusals = new Counter({ name: 'sluice_refusals_total', help: 'Requests refused, by code', labelNames: ['code'], registers });
    this.#slowClients = new Counter({ name: 'sluice_event_slow_clients_total', help: 'Event clients closed for being too slow', registers });
    new Gauge({
      name: 'sluice_event_clients',
      help: 'Clients that follow events now',
      registers,
      collect() {
        this.set(source.eventClients());
      },
    });
    new Counter({
      name: 'sluice_plane_lost_frames_total',
      help: 'Frames that ended at the ports for a reason of the data plane\'s own (plane: pcap), by reason',
      labelNames: ['reason'],
      registers,
      collect() {
        this.reset();
        for (const [reason, frames] of Object.entries(source.planeLost())) this.inc({ reason }, frames);
      },
    });
    new Counter({
      name: 'sluice_hook_events_total',
      help: 'Events for the hook command and the webhooks, by what became of them: done, failed, dropped (too many wait)',
      labelNames: ['target', 'outcome'],
      registers,
      collect() {
        this.reset();
        for (const [target, counts] of source.hooks?.() ?? []) for (const [outcome, events] of Object.entries(counts)) this.inc({ target, outcome }, events);
      },
    });
    this.#addGroups(registers);
    this.#addHold(registers);
    this.#addPorts(registers);
    addHosts(source, registers);
  }

  /** The classifier's counters, by device. */
  ports(): readonly PortStats[] {
    return this.#source.ports();
  }
  command(kind: string, seconds: number): void {
    const known = this.#byCommand.get(kind) ?? this.#commands.labels(kind);
    this.#byCommand.set(kind, known);
    known.observe(seconds);
  }
  refusal(code: ErrorCode): void {
    this.#refusals.inc({ code });
  }
  slowClient(): void {
    this.#slowClients.inc();
  }

  #addGroups(registers: Registry[]): void {
    const source = this.#source;
    new Gauge({
      name: 'sluice_epoch',
      help: 'Watermarks of a group: released <= committed <= acked <= sealed < open',
      labelNames: ['group', 'mark'],
      registers,
      collect() {
        this.reset();
        for (const { state } of source.groups()) for (const [mark, , pick] of EPOCHS) this.set({ group: state.spec.group, mark }, pick(state));
      },
    });
    const perGroup: readonly Row<GroupState>[] = [
      ['sluice_generation', 'Fencing number of a group; 0 = never protected', (s) => s.generation],
      ['sluice_protected', '1 while the group\'s frames are held', (s) => (s.phase === 'idle' ? 0 : 1)],
    ];
    for (const [name, help, pick] of perGroup) {
      new Gauge({
        name,
        help,
        labelNames: ['group'],
        registers,
        collect() {
          this.reset();
          for (const { state } of source.groups()) this.set({ group: state.spec.group }, pick(state));
        },
      });
    }
  }

  #addHold(registers: Registry[]): void {
    const held = (): { group: string; counters: HoldCounters }[] =>
      this.#source.groups().flatMap(({ state, counters }) => (counters === undefined ? [] : [{ group: state.spec.group, counters }]));
    for (const [name, help, pick] of HOLD_GAUGES) {
      new Gauge({ name, help, labelNames: ['group'], registers, collect() {
        this.reset();
        for (const { group, counters } of held()) this.set({ group }, pick(counters));
      } });
    }
    for (const [name, help, pick] of HOLD_COUNTERS) {
      new Counter({ name, help, labelNames: ['group'], registers, collect() {
        this.reset();
        for (const { group, counters } of held()) this.inc({ group }, pick(counters));
      } });
    }
    const seconds = (ms: readonly number[]): number[] => ms.map((bound) => bound / 1000);
    this.registry.registerMetric(new ReadyHistogram('sluice_hold_seconds', 'Hold time of released frames', seconds(HOLD_BUCKETS_MS), () =>
      held().map(({ group, counters }) => ({ group, counts: counters.holdHistogram, sumSeconds: counters.holdSumMs / 1000 })),
    ));
    this.registry.registerMetric(new ReadyHistogram('sluice_commit_to_wire_seconds', 'Release command to the first frame handed to the kernel', seconds(WIRE_BUCKETS_MS), () =>
      held().map(({ group, counters }) => ({ group, counts: counters.wireHistogram, sumSeconds: counters.wireSumMs / 1000 })),
    ));
  }

  #addPorts(registers: Registry[]): void {
    const source = this.#source;
    for (const unit of ['frames', 'bytes'] as const) {
      new Counter({ name: `sluice_port_in_${unit}_total`, help: `All ${unit} that came in at a member's port`, labelNames: ['group', 'port'], registers, collect() {
        this.reset();
        for (const { group, port, in: came } of source.ports()) this.inc({ group, port }, came[unit]);
      } });
      new Counter({ name: `sluice_port_${unit}_total`, help: `${unit} at a member's port by verdict; their sum is sluice_port_in_${unit}_total`, labelNames: ['group', 'port', 'verdict'], registers, collect() {
        this.reset();
        for (const { group, port, verdict } of source.ports()) for (const [name, count] of Object.entries(verdict)) this.inc({ group, port, verdict: name }, count[unit]);
      } });
    }
    for (const [name, help, pick] of PORT_COUNTERS) {
      new Counter({ name, help, labelNames: ['group', 'port'], registers, collect() {
        this.reset();
        for (const port of source.ports()) this.inc({ group: port.group, port: port.port }, pick(port));
      } });
    }
  }
}
