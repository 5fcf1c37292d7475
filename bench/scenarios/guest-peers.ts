/**
 * QEMU's own filter-buffer beside Sluice, each in front of a real guest on a tap.
 *
 *   guest ── virtio-net ── [ filter-buffer, every 25 ms ] ── tap ── br0 ── uplink ── outsider
 *                                                             └─ Sluice: cut and commit every 25 ms
 *
 * filter-buffer knows no commit: it lets go at its interval. So Sluice commits with the cut: both
 * hold a frame half an interval on average. The guest is emulated and sends at a fraction of what
 * a bridge carries; the figures compare the two ways to hold, not machines.
 */
import { join } from 'node:path';
import { end, startIn, until, type Running } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import { echo } from '../bed/echo.ts';
import { median, quantile } from '../bed/stats.ts';
import { Driver, NO_HOLD } from '../peers/hold.ts';
import { sluiceHold } from '../peers/sluice.ts';
import { Unavailable, type Lap, type Reading, type Scenario, type Stage } from '../scenario.ts';
import { VmBed } from '../vm/bed.ts';
import { KitUnavailable } from '../vm/kernel.ts';
import { sendOutMbps } from '../vm/lab.ts';

const EPOCH_MS = 25;
const CADENCE = { intervalMs: EPOCH_MS, commitDelayMs: 0 };
const SINK_PORT = '7002';
const GUEST = 'store';
const ECHOES = 60;
/** queue=rx: what the netdev receives, so what the guest sends. Microseconds. */
const FILTER = ['-object', `filter-buffer,id=hold,netdev=nic,queue=rx,interval=${EPOCH_MS * 1000}`];

interface Guest {
  readonly vm: VmBed;
  readonly driver: Driver;
  readonly sink: Running;
}

/** A bed with one guest and the outsider's sink for each variant, made when its first lap needs it. */
class Guests implements Stage {
  readonly #made = new Map<string, Guest>();

  async lap(lap: Lap): Promise<Reading> {
    const { vm, driver } = this.#made.get(lap.variant) ?? (await this.#make(lap.variant));
    return driver.during(CADENCE, async () => {
      const mbps = await sendOutMbps(vm, GUEST, lap.seconds * 1e3);
      const { roundTripMs, lost } = await echo(vm.bed, { ip: vm.ip(GUEST) }, { count: ECHOES, spacingMs: 1, spreadMs: EPOCH_MS, timeoutMs: 2000 });
      if (lost > 0) throw new Error(`${lost} of ${ECHOES} echo requests had no reply`);
      return { values: { mbps, p50: median(roundTripMs), p99: quantile(roundTripMs, 0.99) }, series: { 'round trip, ms': roundTripMs } };
    });
  }

  async close(): Promise<void> {
    for (const { vm, sink } of this.#made.values()) {
      await end(sink);
      await vm.close();
    }
    this.#made.clear();
  }

  async #make(variant: string): Promise<Guest> {
    const vm = await VmBed.create({ guests: 1, group: 'peer', qemu: variant === 'filter-buffer' ? FILTER : [] });
    let sink: Running | undefined;
    try {
      await vm.startGuests();
      sink = startIn(vm.bed.outsider.namespace ?? '', process.execPath, [join(repositoryRoot(), 'dist/bench/peers/sink-child.js'), SINK_PORT]);
      const said = sink;
      await until('the sink listens', () => said.output().includes('listening'));
      const hold = variant === 'group' ? await sluiceHold(vm.bed, vm.memberFile()) : NO_HOLD;
      const guest = { vm, driver: new Driver(hold), sink };
      this.#made.set(variant, guest);
      return guest;
    } catch (error) {
      if (sink !== undefined) await end(sink);
      await vm.close();
      throw error instanceof KitUnavailable ? new Unavailable(error.message) : error;
    }
  }
}

export const guestPeers: readonly Scenario[] = [{
  name: 'filter-buffer', section: 'peers',
  topology: 'a real guest (QEMU, TCG, virtio-net on a tap) and an outsider on one Linux bridge, a guest for each variant',
  arguments: `TCP out of the guest by its own clock, then ICMP echo from outside; both let go every ${EPOCH_MS} ms`,
  variants: [{ name: 'plain' }, { name: 'group' }, { name: 'filter-buffer' }],
  quantities: [
    { key: 'mbps', name: `a guest's TCP to the outside, ${EPOCH_MS} ms epochs`, unit: 'Mbit/s' },
    { key: 'p50', name: `echo from a guest, ${EPOCH_MS} ms epochs, p50`, unit: 'ms', lowerIsBetter: true },
    { key: 'p99', name: `echo from a guest, ${EPOCH_MS} ms epochs, p99`, unit: 'ms', lowerIsBetter: true },
  ],
  open: () => {
    if (process.getuid?.() !== 0) throw new Unavailable('needs root: namespaces and taps');
    return Promise.resolve(new Guests());
  },
}];
