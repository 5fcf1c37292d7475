/**
 * The child of the portable plane: reads all ports, switches, holds and releases, in one thread.
 *
 *   ┌─► what the daemon said ─► a breath of each group ─► ports that have frames ─┐
 *   └── sleep until a port, the daemon, or the earliest time a group asked for ◄──┘
 *
 *   a port's read ends only when its ring is empty, and a busy one never is. So every CHORES_FRAMES
 *   frames the same is done from within it: daemon, breaths, and the other ports by turns (one
 *   level deep). A port read by turns has an allowance; what comes beyond it is skipped and counted
 *   (`starved`), so that the one below it goes on.
 *
 * It is a process of its own, and is ended by a signal, because the pcap package may end the process
 * and its sessions do not close reliably. It dies with the daemon. Then nobody forwards: the ports
 * are in no bridge, and the fence keeps the host's stack out (I8).
 *
 *   argv: file of the shared memory. fd 3: the daemon, a stream socket (protocol.ts).
 *
 * `catchUp`: every frame that was in a port's ring when it was asked for has been decided when it is
 * answered: its read has ended since, or it has read as many frames as the ring has slots.
 * An error in here is a broken invariant: the process ends, what it held is lost.
 */
import * as libc from '../edge/ffi/libc.ts';
import { dieWithParent, receive, send } from '../edge/ffi/sys.ts';
import { PcapPort, SLOTS } from '../edge/pcap-port.ts';
import { Groups } from '../plane/groups.ts';
import { clockMs } from '../plane/protocol.ts';
import type { Message, Request } from '../plane/protocol.ts';
import { SOFT_BLOCK_FRAMES_MAX, SoftQueue } from '../plane/soft-queue.ts';
import { Shared } from './layout.ts';
import { Unpacker, packed } from './protocol.ts';
import type { PortWanted, SwitchRequest, ToChild } from './protocol.ts';
import { Switch } from './switch.ts';
import { SharedTables } from './tables.ts';

const DAEMON_FD = 3;
const SIGKILL = 9;
const CHORES_FRAMES = 64;
const ALLOWANCE_FRAMES = 2 * SLOTS;
const SLEEP_MS_MAX = 500;
const BACKLOG_SLEEP_MS = 1;
/** The daemon does not read any more: a capture it asked for and some facts fit in here. */
const OUTBOX_BYTES_MAX = 64 << 20;
const RECEIVE_BYTES = 1 << 16;
const EVENTS_MAX = 64;
const DROPS_EVERY_MS = 100;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const EPOLLERR = 0x8;
const MSG_NOSIGNAL = 0x4000;
const NICE = -10;

dieWithParent(SIGKILL);
const shared = new Shared(process.argv[2] ?? '', 'join');
const tables = new SharedTables(shared);
const lose = (why: Parameters<Shared['lose']>[0]): void => shared.lose(why, 1);
const fabric = new Switch(tables, lose);
const ports = new Map<number, PcapPort>();
/** Hold ifindex of each group. */
const holds = new Map<number, number>();
const native = libc.nativeBlock(libc.EPOLL_EVENT_BYTES * EVENTS_MAX + 16, 'events');
const events = new DataView(native.buffer);
const epoll = libc.must(libc.epollCreate(0), 'epoll_create1', 'plane');

// --------------------------------------------------------------------------------- the daemon

/** The daemon is gone. By signal: sessions are in no state to be closed. */
function end(): never {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('not even SIGKILL ended this process');
}

let outbox: Buffer[] = [];
let outboxBytes = 0;
function post(message: Message): void {
  const bytes = packed(message);
  outbox.push(bytes);
  outboxBytes += bytes.length;
  if (outboxBytes > OUTBOX_BYTES_MAX) throw new Error('the daemon does not read its answers');
  flush();
}
function flush(): void {
  for (let first = outbox[0]; first !== undefined; first = outbox[0]) {
    const sent = send(DAEMON_FD, first, first.length, libc.MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (libc.errno() !== libc.EAGAIN && libc.errno() !== libc.EINTR) end();
      return;
    }
    outboxBytes -= sent;
    if (sent < first.length) outbox[0] = first.subarray(sent);
    else outbox = outbox.slice(1);
  }
}
const groups = new Groups({
  cells: { groups: shared.groups, nics: shared.nics },
  blockFramesMax: SOFT_BLOCK_FRAMES_MAX,
  openQueue: (id, { bytes }) => {
    const hold = holds.get(id);
    if (hold === undefined) throw new Error(`group ${id} has no hold device`);
    const out = (stamp: number, frame: Buffer): void => fabric.release(hold, stamp, frame, Date.now());
    const queue: SoftQueue = new SoftQueue(bytes, out, () => {
      if (fabric.queues.get(hold) === queue) fabric.queues.delete(hold);
    });
    fabric.queues.set(hold, queue);
    return queue;
  },
  meterOf: ({ id }) => shared.meter(id),
  answer: (call, value) => post({ op: 'answer', call, value }),
  hand: (call, value) => post({ op: 'answer', call, value }),
  fail: (call, error) => post({ op: 'failed', call, message: error instanceof Error ? error.message : String(error), fix: 'see the log of sluiced: memory for its hold queue' }),
  fact: (fact) => post({ op: 'fact', fact }),
});

const inbox = new Unpacker();
const chunk = new Uint8Array(RECEIVE_BYTES);
let hearing = false;
/** All that the daemon has said. Not again from within itself: what was said keeps its order. */
function hear(): void {
  if (hearing) return;
  hearing = true;
  for (;;) {
    const bytes = receive(DAEMON_FD, chunk, chunk.length, libc.MSG_DONTWAIT);
    if (bytes === 0) end();
    if (bytes < 0) break;
    inbox.add(Buffer.from(chunk.subarray(0, bytes)));
    for (let message = inbox.next(); message !== undefined; message = inbox.next()) handle(message as ToChild);
  }
  hearing = false;
}

function handle(request: ToChild): void {
  switch (request.op) {
    case 'open': case 'close': case 'advance': case 'release': case 'restore': case 'receiver': case 'drain': case 'held': case 'lanes': case 'dump':
      groups.handle(request satisfies Request);
      break;
    default:
      handleSwitch(request);
  }
}
function handleSwitch(request: SwitchRequest): void {
  switch (request.op) {
    case 'put': return tables.put(request.table, request.key, request.value);
    case 'remove': return tables.remove(request.table, request.key);
    case 'hook': return fabric.hook(request.hook);
    case 'unhook': return fabric.unhook(request.hook);
    case 'count': return tables.counted(request.ifindex, request.slot);
    case 'uncount': return tables.uncounted(request.ifindex);
    case 'fix': return fabric.fix(request.mac, request.ifindex);
    case 'unfix': return fabric.unfix(request.mac, request.ifindex);
    case 'hold': return void holds.set(request.id, request.ifindex);
    case 'announce': return fabric.announce(request.frame, request.except);
    case 'ports': return post({ op: 'answer', call: request.call, value: servePorts(request.ports) });
    case 'passed': return post({ op: 'answer', call: request.call, value: undefined });
    case 'catchUp': return catchUp(request.call);
  }
}

// --------------------------------------------------------------------------------------- ports

/** Returns what is open now. A port that can't be opened (it went down, or away) is asked for again. */
function servePorts(wanted: readonly PortWanted[]): number[] {
  for (const [ifindex, port] of ports) {
    if (wanted.some((one) => one.ifindex === ifindex)) continue;
    ports.delete(ifindex);
    fabric.ports.delete(ifindex);
    fabric.fdb.forgetPort(ifindex);
    readSince(port);
    port.close();
  }
  for (const one of wanted) {
    const outlet = fabric.ports.get(one.ifindex);
    if (outlet !== undefined) outlet.mtu = one.mtu;
    else if (one.up) maybeOpen(one);
  }
  return [...ports.keys()];
}
function maybeOpen({ ifindex, name, mtu }: PortWanted): void {
  try {
    const port: PcapPort = new PcapPort(ifindex, name, (frame, wireBytes, arrivedMs) => onFrame(port, frame, wireBytes, arrivedMs));
    // libpcap opens by name, and the name may be another device's by now, which must not pass for this one.
    if (libc.ifNametoindex(name) !== ifindex) return void port.close();
    libc.epollAdd(epoll, port.fd, libc.EPOLLIN);
    ports.set(ifindex, port);
    fabric.ports.set(ifindex, { mtu, inject: (frame) => port.inject(frame) });
  } catch {
    // it is not in the answer, and the daemon says so
  }
}

let depth = 0;
let allowance = Number.POSITIVE_INFINITY;
let sinceChores = 0;

function read(port: PcapPort, framesMax: number): void {
  const before = allowance;
  allowance = framesMax;
  depth++;
  port.read();
  depth--;
  allowance = before;
  readSince(port);
}

function onFrame(port: PcapPort, frame: Buffer, wireBytes: number, arrivedMs: number): void {
  if (--allowance < 0) lose('starved');
  else fabric.arrive(port.ifindex, frame, wireBytes, arrivedMs);
  if (waiters.length > 0) readOne(port);
  if (++sinceChores < CHORES_FRAMES) return;
  sinceChores = 0;
  chores();
}

/** From within a port's read. */
function chores(): void {
  hear();
  breathe();
  flush();
  if (depth > 1) return;
  groups.dumpSome();
  for (const port of ports.values()) if (!port.reading) read(port, ALLOWANCE_FRAMES);
}

// ------------------------------------------------------------------------------------ catching up

interface Waiter {
  readonly call: number;
  /** Frames each port that was being read has yet to read. */
  readonly left: Map<PcapPort, number>;
}
let waiters: Waiter[] = [];

function catchUp(call: number): void {
  for (const port of ports.values()) if (!port.reading) read(port, ALLOWANCE_FRAMES);
  const left = new Map([...ports.values()].filter(({ reading }) => reading).map((port) => [port, SLOTS]));
  waiters.push({ call, left });
  answerWaiters();
}
function readOne(port: PcapPort): void {
  for (const { left } of waiters) {
    const frames = left.get(port);
    if (frames === undefined) continue;
    if (frames > 1) left.set(port, frames - 1);
    else left.delete(port);
  }
  answerWaiters();
}
function readSince(port: PcapPort): void {
  if (waiters.length === 0) return;
  for (const { left } of waiters) left.delete(port);
  answerWaiters();
}
function answerWaiters(): void {
  if (!waiters.some(({ left }) => left.size === 0)) return;
  for (const { call } of waiters.filter(({ left }) => left.size === 0)) post({ op: 'answer', call, value: undefined });
  waiters = waiters.filter(({ left }) => left.size > 0);
}

// ---------------------------------------------------------------------------------------- the loop

let againMs = Number.POSITIVE_INFINITY;
let dropsAtMs = 0;
const offsetMs = clockMs() - performance.now();

function breathe(): void {
  const nowMs = performance.now() + offsetMs;
  againMs = groups.breathe(nowMs, Date.now());
  if (nowMs < dropsAtMs) return;
  dropsAtMs = nowMs + DROPS_EVERY_MS;
  for (const port of ports.values()) shared.lose('notRead', port.drops());
}

function sleepMs(): number {
  if ([...fabric.queues.values()].some(({ waiting }) => waiting)) return 0;
  const most = outbox.length > 0 ? BACKLOG_SLEEP_MS : SLEEP_MS_MAX;
  return Math.min(most, Math.max(0, Math.ceil(againMs - performance.now() - offsetMs)));
}

/** An error of a device (down, gone) is read off the socket, or it would wake us for ever. */
function clearError(fd: number): void {
  const at = native.at + libc.EPOLL_EVENT_BYTES * EVENTS_MAX;
  events.setUint32(libc.EPOLL_EVENT_BYTES * EVENTS_MAX + 8, 4, true);
  libc.getOption(fd, SOL_SOCKET, SO_ERROR, at, at + 8);
}

function run(): void {
  libc.maybeHurry(NICE);
  libc.epollAdd(epoll, DAEMON_FD, libc.EPOLLIN);
  for (;;) {
    hear();
    breathe();
    flush();
    const more = groups.dumpSome();
    const woken = libc.epollWait(epoll, native.at, EVENTS_MAX, more ? 0 : sleepMs());
    if (woken < 0 && libc.errno() !== libc.EINTR) libc.must(woken, 'epoll_wait', 'plane');
    const byFd = new Map([...ports.values()].map((port) => [port.fd, port]));
    for (let i = 0; i < woken; i++) {
      const at = i * libc.EPOLL_EVENT_BYTES;
      const port = byFd.get(events.getUint32(at + libc.EPOLL_EVENT_BYTES - 8, true));
      if (port === undefined) continue;
      if ((events.getUint32(at, true) & EPOLLERR) !== 0) clearError(port.fd);
      read(port, Number.POSITIVE_INFINITY);
    }
  }
}

run();
