/**
 * The hold worker: one thread for all groups, on one CPU, that never returns to its event loop.
 *
 *   ┌─► orders and requests ───────────────► a breath of each that wants one ────┐
 *   │                             a piece of one capture, if one is asked for ◄──┤
 *   └── sleep in epoll_wait while no group has anything to do: until a block ◄───┘
 *       is retired, the doorbell rings, or the earliest time a group asked for
 *
 * The ring's sockets are watched edge-triggered: a ring that holds blocks reads as "readable" all
 * the time, and only a newly retired block is news. An order given between a breath and the sleep
 * is seen before the sleep (orders.ts); a sleep ends after a second in any case.
 *
 * An error in here is a broken invariant or a lost socket: the thread ends, what it held is lost,
 * and the main thread says `dead` (I8).
 */
import { writeFileSync } from 'node:fs';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { mapCells } from '../edge/ffi/bpf.ts';
import * as libc from '../edge/ffi/libc.ts';
import { BLOCK_FRAMES_MAX, RingQueue } from '../edge/packet-ring.ts';
import { LaneValves } from '../edge/lane-valves.ts';
import { Groups } from './groups.ts';
import type { HoldQueue } from './groups.ts';
import { LaneCells } from './lane-cells.ts';
import { Lanes } from './lanes.ts';
import { Patience } from './valves.ts';
import { Meter } from './meter.ts';
import { DRAIN_BLOCKS_MAX, POOLED_BLOCK_FRAMES_MAX, PacketPool, PooledQueue } from './packet-pool.ts';
import { ASK, ASLEEP, EXPECTANT, Order, Orders } from './orders.ts';
import { clockMs } from './protocol.ts';
import { retireMsOf } from './retire.ts';
import type { Message, Request, WorkerOptions } from './protocol.ts';
import { LANES } from '../ring/stamp.ts';
import type { GroupId, HoldOptions } from '../ports.ts';

const SLEEP_MS_MAX = 1000;
/** What is missing so long after a lane's marker is lost. */
const LANE_QUIET_MS = 40;
/** A queue's own bound is twice that. */
const LANE_BYTES_MAX = 1 << 30;
const EVENTS_MAX = 64;
/** Every millisecond off the CPU fills a block of every ring. */
const NICE = -10;
/** As `top -H` and the bench know it. */
const THREAD_NAME = 'sluice-hold';

const options = workerData as WorkerOptions;
const orders = new Orders(options.orders);
const order = new Order();
const clock = libc.nativeBlock(libc.EPOLL_EVENT_BYTES * EVENTS_MAX + 16, 'worker clock and events');
const time = new BigInt64Array(clock.buffer, 0, 2);
const epoll = libc.must(libc.epollCreate(0), 'epoll_create1', 'hold worker');

const post = (message: Message): void => { options.port.postMessage(message); };

const laneMaps = { lanes: mapCells(options.pins.lanes).buffer, queues: mapCells(options.pins.queues).buffer };

/** What all lanes learn of the kernel's lock. */
const patience = new Patience();

function openLanes(id: GroupId, { bytes, highWater }: HoldOptions): Lanes | undefined {
  const cells = new LaneCells(id, laneMaps);
  cells.begin(Math.min(LANE_BYTES_MAX, Math.floor(bytes * highWater)));
  return options.mayHaveLanes ? new Lanes(cells, LANE_QUIET_MS, patience) : undefined;
}

const cells = { groups: mapCells(options.pins.groups).buffer, nics: mapCells(options.pins.nics).buffer };

/** One, but for a while two: where its device was lost, groups leave the old one as they are opened again. */
const pools = new Set<PacketPool>();

function openQueue(id: GroupId, { ringDevice, poolDevice, bytes }: HoldOptions): HoldQueue {
  if (poolDevice !== undefined) return openPooled(id, ringDevice, poolDevice, bytes);
  const ringsOpen = [...groups.open.values()].filter((group) => group.queue instanceof RingQueue).length;
  const queue = new RingQueue(ringDevice, bytes, retireMsOf(ringsOpen));
  libc.epollAdd(epoll, queue.fd, libc.EPOLLIN | libc.EPOLLET);
  return queue;
}
function openPooled(id: GroupId, ringDevice: string, poolDevice: string, bytes: number): HoldQueue {
  const pool = poolOn(poolDevice);
  const leave = (): void => {
    if (!pool.isEmpty) return;
    pools.delete(pool);
    pool.close();
  };
  try {
    return new PooledQueue(pool, { id, device: ringDevice, bytes, wallMs, closed: leave });
  } catch (error) {
    leave();
    throw error;
  }
}
function poolOn(device: string): PacketPool {
  const ifindex = libc.ifNametoindex(device);
  const known = [...pools].find(({ ring }) => ring.ifindex === ifindex);
  if (known !== undefined) return known;
  const pool = new PacketPool(device, cells.nics, BLOCK_FRAMES_MAX);
  libc.epollAdd(epoll, pool.ring.fd, libc.EPOLLIN | libc.EPOLLET);
  pools.add(pool);
  return pool;
}

const groups = new Groups({
  openLanes,
  openValves: (id, ifindex) => new LaneValves(ifindex, id, LANES),
  cells,
  blockFramesMax: Math.max(BLOCK_FRAMES_MAX, POOLED_BLOCK_FRAMES_MAX),
  openQueue,
  meterOf: ({ meter }) => new Meter(meter),
  answer: (call, value) => { post({ op: 'answer', call, value }); },
  hand: (call, value) => {
    const message: Message = { op: 'answer', call, value };
    options.port.postMessage(message, [value.rows.buffer, value.bytes.buffer]);
  },
  fail: (call, error) => {
    const message = error instanceof Error ? error.message : String(error);
    post({ op: 'failed', call, message, fix: 'see `sluice doctor`: the hold device, privileges and memory for its ring' });
  },
  fact: (fact) => { post({ op: 'fact', fact }); },
});

/** Wall clock, whole ms in a double with its fraction. */
function wallMs(): number {
  libc.clockGettime(libc.CLOCK_REALTIME, clock.at);
  return Number(time[0]) * 1000 + Number(time[1]) / 1e6;
}

function obey(): void {
  while (orders.pop(order)) {
    const { kind, id, colour, nic, value } = order;
    if (kind !== ASK) {
      groups.obey(kind, id, colour, nic, value);
      continue;
    }
    const received = receiveMessageOnPort(options.port) as { message: Request } | undefined;
    if (received === undefined) throw new Error('a request was announced and did not come');
    groups.handle(received.message);
  }
}

/** What the pool has to its groups, one breath of each; returns when the loop is wanted again. */
function breathe(offsetMs: number): number {
  if (groups.open.size === 0) return Number.POSITIVE_INFINITY;
  let anyLeft = false;
  for (const pool of pools) {
    pool.drain(DRAIN_BLOCKS_MAX);
    anyLeft ||= pool.ring.waiting;
  }
  const wall = wallMs();
  const againMs = groups.breathe(performance.now() + offsetMs, wall);
  return anyLeft ? 0 : againMs;
}

function run(): void {
  writeFileSync('/proc/thread-self/comm', THREAD_NAME);
  libc.pinThread(options.cpu);
  libc.maybeHurry(NICE);
  libc.epollAdd(epoll, options.bellFd, libc.EPOLLIN | libc.EPOLLET);
  const offsetMs = clockMs() - performance.now();
  while (!orders.stopped) {
    obey();
    const again = breathe(offsetMs);
    if (groups.dumpSome()) continue;
    const nowMs = performance.now() + offsetMs;
    if (again <= nowMs) continue;
    if (!orders.maySleep(groups.anyEarly() ? EXPECTANT : ASLEEP)) continue;
    const sleepMs = Math.min(SLEEP_MS_MAX, Math.ceil(again - nowMs));
    const woken = libc.epollWait(epoll, clock.at + 16, EVENTS_MAX, sleepMs);
    if (woken < 0 && libc.errno() !== libc.EINTR) libc.must(woken, 'epoll_wait', 'hold worker');
    orders.awake();
  }
  groups.closeAll();
  libc.close(epoll);
  options.port.close();
}

run();
