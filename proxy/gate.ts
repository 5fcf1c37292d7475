/**
 * The data planes of the daemon, made of their parts, and the errors of those parts in the words that
 * control understands.
 *
 *   ebpf   the classifier's object from the package in the kernel of this namespace; a hold worker
 *   pcap   the same gate over a child that switches, classifies and holds in user space (D22)
 */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LANES, MAPS, MARK, PROGRAMS } from '../classifier/abi.ts';
import { KernelGate } from '../classifier/attach.ts';
import type { Fail } from '../classifier/kernel.ts';
import { bridgesOf } from './bridges.ts';
import type { Config, PcapConfig } from './config.ts';
import type { GroupSpec } from './core/types.ts';
import { BridgeAnnouncer } from './edge/announcer.ts';
import { Fence } from './edge/fence.ts';
import { Kernel } from './edge/kernel.ts';
import { claimMemory } from './edge/shared-memory.ts';
import { HoldLink } from './plane/link.ts';
import { EdgeError } from './ports.ts';
import type { Announcer, Gate, HoldPlane } from './ports.ts';
import { SwitchAnnouncer } from './switch/announcer.ts';
import { ChildLink } from './switch/child-link.ts';
import { Shared } from './switch/layout.ts';
import { ServedPorts } from './switch/served.ts';
import { SoftKernel } from './switch/soft-kernel.ts';

/** One of the two data planes, as the daemon uses it. */
export interface OpenPlane {
  /** Watching, clearing away, counters. */
  readonly keeper: KernelGate;
  /** What control sees of it: the same, its operating errors as EdgeError. */
  readonly gate: Gate;
  readonly announcer: Announcer;
  /** For the log. */
  readonly attach: 'tcx' | 'clsact' | 'pcap';
  /** What outlives the daemon: a directory of pins, or a file. */
  readonly kept: string;
  /** The hold loop. Once. It ends by its own `stop`. */
  start(): HoldPlane;
  /** Every group of the journal is in place. */
  begin(): Promise<void>;
  /** What is not in place besides what the keeper says. */
  missing(): readonly string[];
  /** Frames that ended for a reason of the plane's own, by reason; they only grow. */
  lost(): Readonly<Record<string, number>>;
  /** After the keeper's. */
  close(): void;
}

/** A file of the package, from the sources or from dist/. */
export function packageFile(name: string): string {
  let at = import.meta.dirname;
  while (!existsSync(join(at, 'package.json'))) {
    if (at === dirname(at)) throw new EdgeError('plane_down', `${name} of the package is not found`, 'install sluice again');
    at = dirname(at);
  }
  return join(at, name);
}

/** `name`: this daemon's among those of the machine. */
export function openPlane(config: Config, name: string): OpenPlane {
  return config.pcap === undefined ? openEbpf(config, config.pins ?? `/sys/fs/bpf/sluice-${name}`) : openPcap(config.pcap, config.pcap.memory ?? `/dev/shm/sluice-${name}`);
}

function openEbpf(config: Config, pins: string): OpenPlane {
  const shift = 31 - Math.clz32(config.mark.mask & -config.mark.mask);
  const kernel = new Kernel({
    object: readFileSync(packageFile('classifier/classify.bpf.o')),
    maps: MAPS,
    programs: PROGRAMS,
    mark: { mask: config.mark.mask, shift },
    pinDir: pins,
    alone: true,
    attach: config.attach,
    lanes: LANES,
    owner: `sluice ${pins}`,
    ...(config.vxlanPort === undefined ? {} : { vxlanPort: config.vxlanPort }),
  });
  const bridges = bridgesOf(config.bridges);
  const keeper = new KernelGate(kernel, edgeError, config.uplink, (bridge) => bridges.has(bridge), config.worker.rings);
  const announcer = new BridgeAnnouncer({ links: () => kernel.ports() }, (MARK.releasedSplit << shift) >>> 0);
  return {
    keeper,
    gate: guarded(keeper),
    announcer,
    attach: kernel.attachMode,
    kept: pins,
    // The maps are pinned until `settle`.
    start: () => {
      const link = new HoldLink({
        cpu: config.worker.cpu ?? lastCpu(), lanes: { mode: config.lanes, ensure: (id) => keeper.ensureLanes(id), drop: (id) => keeper.dropLanes(id) },
        pins: { groups: `${pins}/groups`, nics: `${pins}/nics`, lanes: `${pins}/lanes`, queues: `${pins}/queues` },
      });
      keeper.onEvent((event) => { if (event.kind === 'lanes-lost') link.lanesLost(event.id); });
      return link;
    },
    begin: () => Promise.resolve(),
    missing: () => bridges.missing(new Set(kernel.ports().filter(({ kind }) => kind === 'bridge').map(({ name }) => name))),
    lost: () => ({}),
    close: () => announcer.close(),
  };
}

function openPcap({ ports }: PcapConfig, memory: string): OpenPlane {
  const fence = new Fence(createHash('sha256').update(memory).digest('hex').slice(0, 12));
  const claim = claimMemory(memory);
  const shared = new Shared(memory, 'make');
  const child = new ChildLink(memory, shared);
  const kernel = new SoftKernel(child, shared, memory, ports);
  const keeper = new KernelGate(kernel, edgeError);
  const announcer = new SwitchAnnouncer(child);
  const served = new ServedPorts(ports, { links: () => kernel.links(), watch: (listener) => kernel.watch(listener) }, child, fence, () => keeper.reconcile());
  return {
    keeper,
    gate: overSwitch(guarded(keeper), child, kernel, ports),
    announcer,
    attach: 'pcap',
    kept: memory,
    start: () => {
      served.fenceOff();
      return child;
    },
    begin: () => served.begin(),
    missing: () => [...served.missing(), ...[child.silence()].filter((one) => one !== undefined)],
    lost: () => shared.lost(),
    close: () => {
      announcer.close();
      served.close();
      if (!kernel.pinned) fence.remove();
      closeSync(claim);
    },
  };
}

/** Cells are seen at once, what is said to the child a little later: a change is over when it has heard it. */
function overSwitch(gate: Gate, child: ChildLink, kernel: SoftKernel, ports: readonly string[]): Gate {
  const inTime = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } finally {
      await child.passed();
    }
  };
  const checked = <T>(spec: GroupSpec, work: () => Promise<T>): Promise<T> => {
    const links = kernel.links();
    for (const { port } of spec.members.flatMap(({ nics }) => nics)) {
      if (!ports.includes(port)) return Promise.reject(edgeError('bad_request', `port ${port} is not one of pcap.ports`, 'add it to pcap.ports in the settings of sluiced and restart it'));
      const master = links.find(({ name }) => name === port)?.master ?? 0;
      if (master !== 0) return Promise.reject(edgeError('bad_request', `port ${port} is in a bridge, and this plane bridges its ports itself`, `ip link set ${port} nomaster`));
    }
    return inTime(work());
  };
  return {
    ...gate,
    attach: (id, spec, colour, members, wire) => checked(spec, () => gate.attach(id, spec, colour, members, wire)),
    reattach: (id, spec, members, wire) => checked(spec, () => gate.reattach(id, spec, members, wire)),
    detach: (id) => inTime(gate.detach(id)),
    caughtUp: () => child.caughtUp(),
  };
}

const edgeError: Fail = (code, message, fix, cause) => new EdgeError(code, message, fix, cause);

/** The last CPU we may run on: the first takes most interrupts. */
function lastCpu(): number {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return Number(list.split(/[,-]/).at(-1));
}

/** A call of the system that failed is an operating error; anything else stays a fault of the program. */
async function understood<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof Error) || error instanceof EdgeError) throw error;
    if ('fix' in error && typeof error.fix === 'string') throw new EdgeError('plane_down', error.message, error.fix, error);
    if (error.name === 'SystemError') throw new EdgeError('plane_down', error.message, 'sluice doctor looks for the cause', error);
    throw error;
  }
}

function guarded(keeper: KernelGate): Gate {
  return {
    attach: (id, spec, colour, members, wire) => understood(keeper.attach(id, spec, colour, members, wire)),
    reattach: (id, spec, members, wire) => understood(keeper.reattach(id, spec, members, wire)),
    detach: (id) => understood(keeper.detach(id)),
    setColour: (id, colour) => keeper.setColour(id, colour),
    setMemberColour: (id, member, colour) => keeper.setMemberColour(id, member, colour),
    setCommit: (id, colour) => keeper.setCommit(id, colour),
    setWire: (id, wire) => keeper.setWire(id, wire),
    setReady: (id, member) => keeper.setReady(id, member),
    setDraining: (id, member) => keeper.setDraining(id, member),
  };
}
