/**
 * Which ports the portable plane serves: those of `pcap.ports` that exist and are in no bridge.
 *
 *   names ─► devices of the namespace ─┬─ fence round each that exists (host's stack, Linux bridges)
 *                                      └─ in no bridge ─► the child opens it, once it is up
 *
 * A change of devices is seen by netlink; the gate goes first, so that a member's port is classified
 * before it is opened, then the fence, then the child. Nothing is served before `begin`: until the
 * journal's groups are in place, whatever came in would be switched unprotected (I8). A fence that
 * another tool took down is put up again at once. What could
 * not be done is tried again every RETRY_MS, and `missing` says it.
 *
 * A port in a Linux bridge is refused, not taken out: the fence already keeps that bridge from
 * forwarding what comes in there, and whose mistake it is, is not ours to guess.
 */
import type { Fence } from '../edge/fence.ts';
import { EdgeError } from '../ports.ts';
import type { ChildLink } from './child-link.ts';
import type { PortWanted } from './protocol.ts';

const RETRY_MS = 250;

/** Devices, as netlink shows them. */
export interface Devices {
  links(): readonly Device[];
  watch(listener: () => void): { close(): void };
}
export interface Device extends PortWanted {
  readonly master: number;
}

export class ServedPorts {
  readonly #names: readonly string[];
  readonly #devices: Devices;
  readonly #child: Pick<ChildLink, 'serve'>;
  readonly #fence: Pick<Fence, 'around' | 'whole' | 'watch'>;
  /** The gate looks at the devices. */
  readonly #before: () => Promise<void>;
  #open: ReadonlySet<number> = new Set();
  #fenced = '';
  #trouble: string | undefined = 'its ports are not served yet';
  #watch: { close(): void } | undefined;
  #fenceWatch: { close(): void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #queue: Promise<void> = Promise.resolve();

  constructor(names: readonly string[], devices: Devices, child: Pick<ChildLink, 'serve'>, fence: Pick<Fence, 'around' | 'whole' | 'watch'>, before: () => Promise<void>) {
    this.#names = names;
    this.#devices = devices;
    this.#child = child;
    this.#fence = fence;
    this.#before = before;
  }

  /** Throws EdgeError where this machine can't. */
  fenceOff(): void {
    this.#fenceWatch ??= this.#fence.watch(() => this.#fenceTouched());
    const there = this.#listed();
    const key = there.map(({ name, ifindex }) => `${name} ${ifindex}`).join(',');
    if (key === this.#fenced) return;
    this.#fence.around(there.map(({ name }) => name));
    this.#fenced = key;
  }

  /** At once: until it stands again the host's stack hears the VMs. */
  #fenceTouched(): void {
    if (this.#fence.whole()) return;
    this.#fenced = '';
    try {
      this.fenceOff();
    } catch (error) {
      this.#trouble = textOf(error);
    }
  }

  /** From here on frames are switched. */
  async begin(): Promise<void> {
    this.#watch = this.#devices.watch(() => void this.#again());
    this.#timer = setInterval(() => {
      if (this.missing().length > 0) void this.#again();
    }, RETRY_MS).unref();
    await this.#again();
  }
  close(): void {
    this.#watch?.close();
    this.#fenceWatch?.close();
    clearInterval(this.#timer);
  }

  /** One sentence each; empty = all are served. */
  missing(): string[] {
    if (this.#trouble !== undefined) return [this.#trouble];
    const there = new Map(this.#listed().map((device) => [device.name, device]));
    return this.#names.flatMap((name) => {
      const why = this.#whyNot(there.get(name));
      return why === undefined ? [] : [`port ${name} of pcap.ports ${why}`];
    });
  }
  #whyNot(device: Device | undefined): string | undefined {
    if (device === undefined) return 'does not exist';
    if (device.master !== 0) return `is in a bridge: ip link set ${device.name} nomaster`;
    if (this.#open.has(device.ifindex)) return undefined;
    return device.up ? 'is not open yet' : 'is down';
  }

  #listed(): Device[] {
    const names = new Set(this.#names);
    return this.#devices.links().filter(({ name }) => names.has(name));
  }
  #again(): Promise<void> {
    this.#queue = this.#queue.then(() => this.#serve()).then(() => { this.#trouble = undefined; }, (error: unknown) => {
      this.#trouble = textOf(error);
    });
    return this.#queue;
  }
  async #serve(): Promise<void> {
    // What comes while the gate looks is not classified yet: its turn is the next change, its own.
    const seen = new Set(this.#listed().map(({ ifindex }) => ifindex));
    await this.#before();
    this.fenceOff();
    const ports = this.#listed().filter(({ ifindex, master }) => master === 0 && seen.has(ifindex)).map(({ ifindex, name, mtu, up }) => ({ ifindex, name, mtu, up }));
    this.#open = new Set(await this.#child.serve(ports));
  }
}

const textOf = (error: unknown): string => (error instanceof EdgeError ? `${error.message}; ${error.fix}` : String(error));
