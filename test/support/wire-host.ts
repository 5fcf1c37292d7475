/**
 * One host of a bed of several: the real gate and the real hold plane in that host's namespace, and
 * this process in the executor's place. A cut is a cell and a message, a commit is a cell and a
 * message, a takeover is the executor's order of stores.
 *
 * Colours differ from host to host (each has a base of its own), epochs and generations don't: that is
 * what frames between hosts are compared by.
 */
import { readFileSync } from 'node:fs';
import { namespacePath } from '../../bench/bed/commands.ts';
import { inNamespace } from '../../bench/bed/libc.ts';
import { LANES, MAPS, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, PROGRAMS } from '../../classifier/abi.ts';
import type { Program } from '../../classifier/abi.ts';
import { KernelGate } from '../../classifier/attach.ts';
import type { Attached, Kernel as GateKernel, SpecView, WireView } from '../../classifier/kernel.ts';
import type { DeviceStats } from '../../classifier/stats.ts';
import { colour, epoch } from '../../proxy/core/types.ts';
import { Kernel } from '../../proxy/edge/kernel.ts';
import { HoldLink } from '../../proxy/plane/link.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { ownPins } from './own-namespace.ts';

const GROUP = 0;
const RING_BYTES = 8 << 20;

/** Every call in the namespace: links are made by device number, and that is a namespace's. */
function inside(path: string, kernel: Kernel<Program>): GateKernel {
  const at = <T>(job: () => T): T => inNamespace(path, job);
  return {
    cells: kernel.cells,
    ports: () => at(() => kernel.ports()),
    watch: (listener) => at(() => kernel.watch(listener)),
    ensureHoldPair: (id) => at(() => kernel.ensureHoldPair(id)),
    ensureLanePair: (id) => at(() => kernel.ensureLanePair(id)),
    deleteLanePair: (id) => { at(() => { kernel.deleteLanePair(id); }); },
    deleteHoldPair: (id) => at(() => kernel.deleteHoldPair(id)),
    poolDevice: kernel.poolDevice,
    ensurePool: () => at(() => kernel.ensurePool()),
    deletePool: () => at(() => kernel.deletePool()),
    hooks: (ifindexes) => at(() => [...kernel.hooks(ifindexes)]),
    hook: (hook) => at(() => kernel.hook(hook)),
    unhook: (hook) => at(() => kernel.unhook(hook)),
    entries: (table) => kernel.entries(table),
    put: (table, key, value) => kernel.put(table, key, value),
    remove: (table, key) => kernel.remove(table, key),
    counted: () => kernel.counted(),
    count: (ifindex) => kernel.count(ifindex),
    uncount: (ifindex) => kernel.uncount(ifindex),
    counters: (ifindex) => kernel.counters(ifindex),
    tunnelDevice: kernel.tunnelDevice,
    ensureTunnel: () => at(() => kernel.ensureTunnel()),
    deleteTunnel: () => at(() => kernel.deleteTunnel()),
    forward: (ifindex, mac) => at(() => kernel.forward(ifindex, mac)),
    unforward: (ifindex, mac) => at(() => kernel.unforward(ifindex, mac)),
    passed: () => kernel.passed(),
    pin: () => kernel.pin(),
    unpin: () => kernel.unpin(),
    close: () => kernel.close(),
  };
}

/** The real gate, at work in another namespace; what it pins is for the caller to remove. `broken`: what this kernel does otherwise. */
export function gateIn(path: string, pinDir: string, broken: (kernel: GateKernel) => Partial<GateKernel> = () => ({})): KernelGate {
  const kernel = inNamespace(path, () => new Kernel<Program>({
    object: readFileSync('classifier/classify.bpf.o'), maps: MAPS, programs: PROGRAMS,
    mark: { mask: MARK_MASK_DEFAULT, shift: MARK_SHIFT_DEFAULT }, pinDir, attach: 'auto', lanes: LANES, owner: `sluice test ${process.pid}`,
  }));
  const there = inside(path, kernel);
  return new KernelGate({ ...there, ...broken(there) }, (code, message, fix, cause) => new EdgeError(code, message, fix, cause), 'uplink');
}

export interface WireHostOptions {
  /** Its name in the spec. */
  readonly self: string;
  readonly namespace: string;
  /** 0 = by VXLAN. */
  readonly vlan: number;
  readonly vxlan?: NonNullable<WireView['vxlan']>;
  /** Colour of epoch 0 here. */
  readonly base: number;
}

export class WireHost {
  readonly gate: KernelGate;
  readonly #plane: HoldLink;
  readonly #options: WireHostOptions;
  readonly #pins: ReturnType<typeof ownPins>;
  #attached: Attached | undefined;
  #base: number;
  #generation = 1;
  open = 1;

  constructor(options: WireHostOptions) {
    this.#options = options;
    this.#base = options.base;
    this.#pins = ownPins(`wire-${options.self}`);
    const path = namespacePath(options.namespace);
    this.gate = gateIn(path, this.#pins.dir);
    this.#plane = inNamespace(path, () => new HoldLink({ cpu: 1, pins: { groups: `${this.#pins.dir}/groups`, nics: `${this.#pins.dir}/nics`, lanes: `${this.#pins.dir}/lanes`, queues: `${this.#pins.dir}/queues` } }));
  }

  get #wire(): WireView {
    const { self, vlan, vxlan } = this.#options;
    return { self, vlan, ...(vxlan === undefined ? {} : { vxlan }), generation: this.#generation, base: this.#base, closed: false };
  }
  #colour(of: number): number {
    return (this.#base + of) >>> 0;
  }
  #members(spec: SpecView): { name: string; colour: number; ready: boolean }[] {
    return spec.members.filter(({ host }) => host === this.#options.self).map(({ name }) => ({ name, colour: this.#colour(this.open), ready: true }));
  }
  #receivers(): void {
    const nics = (this.#attached?.nics ?? []).map(({ nic }) => nic);
    if (nics.length > 0) this.#plane.receiver(GROUP, nics, colour(this.#colour(this.open)));
  }

  async protect(spec: SpecView): Promise<void> {
    this.#attached = await this.gate.attach(GROUP, spec, this.#colour(this.open), this.#members(spec), this.#wire);
    this.gate.setCommit(GROUP, this.#colour(this.open - 1));
    const { holdDevice, ringDevice } = this.#attached;
    await this.#plane.open(GROUP, { holdDevice, ringDevice, bytes: RING_BYTES, highWater: 0.75, colour: colour(this.#colour(this.open)), epoch: epoch(this.open), newest: colour(this.#colour(this.open)) });
    this.#receivers();
    await this.gate.settle();
  }
  /** Seals the open epoch of this host's members and returns it. */
  cut(): number {
    const sealed = this.open++;
    this.#plane.advance(GROUP, colour(this.#colour(this.open)), epoch(this.open));
    this.gate.setColour(GROUP, this.#colour(this.open));
    this.#receivers();
    return sealed;
  }
  commit(of: number): void {
    this.gate.setCommit(GROUP, this.#colour(of));
    this.#plane.release(GROUP, colour(this.#colour(of)));
  }
  /** Goes on from epoch `from` in a higher generation, its members where `spec` says. */
  async takeover(from: number, generation: number, spec: SpecView): Promise<void> {
    const next = this.#colour(this.open) + 1;
    const restored = this.#colour(from);
    this.gate.setWire(GROUP, undefined);
    this.open = from + 1;
    this.#base = (next - this.open) >>> 0;
    this.#generation = generation;
    this.gate.setColour(GROUP, next >>> 0);
    this.#attached = await this.gate.reattach(GROUP, spec, this.#members(spec), this.#wire);
    this.gate.setWire(GROUP, this.#wire);
    this.gate.setCommit(GROUP, restored);
    await this.#plane.restore(GROUP, colour(restored), colour(next), epoch(this.open));
    this.#receivers();
  }

  stats(device: string): DeviceStats {
    const found = this.gate.stats().find((each) => each.device === device);
    if (found === undefined) throw new Error(`${device} has no counters`);
    return found;
  }
  async close(): Promise<void> {
    await this.#plane.stop();
    if (this.#attached !== undefined) await this.gate.detach(GROUP);
    await this.gate.close();
    this.#pins.remove();
  }
}
