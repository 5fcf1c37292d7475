/**
 * The gates of a group's lanes: one token bucket (sch_tbf) a lane, each behind a queue of its own of the
 * lanes' device. Any kernel with that qdisc has them; frames wait in it as they are, without a copy.
 *
 *   slq<g>   mq ─┬─ queue 1 ─ tbf ▐ lane 0        shut   a bucket for a few frames, emptied at once by FILLERS
 *                ├─ queue 2 ─ tbf ▐ lane 1        open   a bucket for BATCH frames
 *                └─ …
 *
 * A change of a bucket fills it, and it gets a byte a second besides: nothing. Each frame costs as many
 * bytes more as the kernel lets one say (OVERHEAD), so a bucket counts frames more than bytes. A gate that is
 * shut lets the fillers through, which are there for that and end behind it; what they leave is too little
 * for the smallest frame for some five minutes. Then one gets through, which does no harm: it goes to the ring.
 *
 * A gate opens for BATCH frames at a time, because a queue that runs free floods the backlog of its CPU:
 * of each frame's two or three passages there, and 1,000 places (net.core.netdev_max_backlog), a burst of
 * thousands lost most. Of so few the kernel forwards most before the call is back, and the rest by its own
 * thread or with the next frame that is sent.
 *
 * A gate that has opened lets its frames go with the next one that comes: a filler, or the marker, which is
 * counted behind them (lane.bpf.h). An epoch costs a handful of system calls, some 50 us in all; a change waits
 * for the lock that all changes of devices share (RTNL), and every group's release with it: how long is told.
 *
 * Everything throws where the kernel refuses: it has no such qdisc, the device is gone, another tool took
 * the queues. A kernel without sch_tbf says ENOENT. It decides nothing.
 */
import * as libc from './ffi/libc.ts';
import { LITTLE, Struct, fixedBytes } from './ffi/struct.ts';
import { receive, send } from './ffi/sys.ts';
import { FLAG, Message, TYPE, replies } from './netlink-message.ts';
import { GATE_HANDLES, Netlink, openSocket } from './netlink.ts';

const TCA = { kind: 1, options: 2 } as const;
const TBF = { parameters: 1, burst: 6 } as const;
const PARAMETER_BYTES = 36; // struct tc_tbf_qopt
const ROOT_PARENT = 0xffff_ffff;
const ETHERNET = 1;
const OVERHEAD = 65_535;
/** A super-frame's bytes, each of its segments' headers counted, and more. */
const BUCKET = 5 * OVERHEAD;
const FILLERS = 5;
const FILLER_BYTES = 60;
/** Frames that an open gate lets go; of super-frames half as many, of the worst (tiny segments) a third. */
export const BATCH = 256;
const LIMIT = 0x7fff_ffff;

const AF_PACKET = 17;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_MARK = 36;
/** Fillers wait behind what they push: a million frames take 5,000. */
const SEND_BUFFER_BYTES = 64 << 20;
const SO_RCVTIMEO = 20;
const TIMEOUT_SECONDS = 5;
const RECEIVE_BYTES = 1 << 14;
/** A change takes some 10 us: who waits so long, waits for somebody else. */
const LONG_MS = 20;

/** As the kernel's programs know what is sent into a lane (abi.h). */
export const laneMarker = (group: number, lane: number, filler: boolean): number => (0x515 << 16) | (group << 8) | (filler ? 0x20 : 0) | lane;

const handleOf = (lane: number): number => ((GATE_HANDLES << 24) | (lane << 16)) >>> 0;
const MQ = ((GATE_HANDLES << 24) | (0x50 << 16)) >>> 0;

function bucket(ifindex: number, lane: number, bytes: number): Message {
  const parameters = new Struct(PARAMETER_BYTES);
  parameters[1] = ETHERNET; // linklayer: no table of the caller's
  parameters.cells.setUint16(2, OVERHEAD, LITTLE);
  parameters.u32(8, 1).u32(24, LIMIT);
  return new Message(TYPE.newQdisc, FLAG.ack | FLAG.create | FLAG.replace).traffic(ifindex, handleOf(lane), MQ + lane + 1)
    .text(TCA.kind, 'tbf')
    .nest(TCA.options, (m) => {
      m.bytes(TBF.parameters, parameters).u32(TBF.burst, bytes);
    });
}

export class LaneValves {
  readonly #ifindex: number;
  readonly #group: number;
  readonly #netlink: number;
  readonly #sender: number;
  readonly #buffer = fixedBytes(RECEIVE_BYTES);
  readonly #open: readonly Message[];
  readonly #shut: readonly Message[];
  readonly #messages: libc.NativeBlock;
  #sequence = 0;
  #waitedMs = 0;

  constructor(ifindex: number, group: number, lanes: number) {
    this.#group = group;
    this.#ifindex = ifindex;
    this.#open = Array.from({ length: lanes }, (_, lane) => bucket(this.#ifindex, lane, BATCH * (OVERHEAD + FILLER_BYTES)));
    this.#shut = Array.from({ length: lanes }, (_, lane) => bucket(this.#ifindex, lane, BUCKET));
    this.#netlink = openSocket(0);
    this.#sender = libc.socket(AF_PACKET, SOCK_RAW_CLOEXEC, 0);
    this.#messages = layOut();
    try {
      libc.must(this.#sender, 'socket', 'AF_PACKET (needs CAP_NET_RAW)');
      this.#prepare();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #prepare(): void {
    libc.setOption(this.#netlink, SOL_SOCKET, SO_RCVTIMEO, [TIMEOUT_SECONDS, 0, 0, 0], 'netlink timeout');
    libc.setOption(this.#sender, SOL_SOCKET, SO_SNDBUFFORCE, [SEND_BUFFER_BYTES], 'SO_SNDBUFFORCE (needs CAP_NET_ADMIN)');
    const name = new DataView(new ArrayBuffer(20));
    name.setUint16(0, AF_PACKET, LITTLE);
    name.setInt32(4, this.#ifindex, LITTLE);
    libc.bind(this.#sender, new Uint8Array(name.buffer), `sender to device ${this.#ifindex}`);
  }

  /** Queues and gates made anew, all shut; what was in them is lost. */
  setUp(): void {
    const netlink = new Netlink();
    try {
      this.#timed(() => netlink.setDown(this.#ifindex)); // graft by graft an active device would wait for the kernel's readers
      this.#ask(new Message(TYPE.newQdisc, FLAG.ack | FLAG.create | FLAG.replace).traffic(this.#ifindex, MQ, ROOT_PARENT).text(TCA.kind, 'mq'), 'qdisc mq');
      for (const message of this.#shut) this.#ask(message, 'qdisc tbf');
      this.#timed(() => netlink.setUp(this.#ifindex));
    } finally {
      netlink.close();
    }
    for (let lane = 0; lane < this.#shut.length; lane++) this.#send(lane, true, FILLERS);
  }
  readonly batch = BATCH;
  /** `batch` frames go with the next one that comes: the marker, or `push`. */
  open(lane: number): void {
    this.#ask(this.#open[lane]!, `lane ${lane} opened`);
  }
  push(lane: number): void {
    this.#send(lane, true, 1);
  }
  shut(lane: number): void {
    this.#ask(this.#shut[lane]!, `lane ${lane} shut`);
    this.#send(lane, true, FILLERS);
  }
  mark(lane: number): void {
    this.#send(lane, false, 1);
  }
  waitedMs(): number {
    const waited = this.#waitedMs;
    this.#waitedMs = 0;
    return waited;
  }
  close(): void {
    libc.close(this.#sender);
    libc.close(this.#netlink);
    libc.freeBlock(this.#messages);
  }

  #send(lane: number, filler: boolean, frames: number): void {
    libc.setOption(this.#sender, SOL_SOCKET, SO_MARK, [laneMarker(this.#group, lane, filler)], 'SO_MARK');
    libc.must(libc.sendmmsg(this.#sender, this.#messages.at, frames, libc.MSG_DONTWAIT), 'sendmmsg', `lane ${lane}`);
  }

  #ask(message: Message, about: string): void {
    this.#timed(() => { this.#exchange(message, about); });
  }
  #timed(job: () => void): void {
    const sinceMs = performance.now();
    try {
      job();
    } finally {
      const ms = performance.now() - sinceMs;
      if (ms >= LONG_MS) this.#waitedMs += ms;
    }
  }
  #exchange(message: Message, about: string): void {
    const bytes = message.finish(++this.#sequence);
    if (send(this.#netlink, bytes, bytes.length, 0) < 0) throw new libc.SystemError('netlink send', about, libc.errno());
    for (;;) {
      const length = receive(this.#netlink, this.#buffer, this.#buffer.length, 0);
      if (length < 0 && libc.errno() === libc.EINTR) continue;
      if (length < 0) throw new libc.SystemError('netlink receive', about, libc.errno());
      for (const { type, body } of replies(this.#buffer, length, this.#sequence)) {
        if (type !== TYPE.error) continue;
        const code = -body.getInt32(0, LITTLE);
        if (code !== 0) throw new libc.SystemError('netlink', about, code);
        return;
      }
    }
  }
}

/** FILLERS messages of one frame, which says nothing: local addresses, an experimental ethertype. */
function layOut(): libc.NativeBlock {
  const header = 64; // struct mmsghdr
  const iovecs = FILLERS * header;
  const frame = iovecs + 16;
  const block = libc.nativeBlock(frame + FILLER_BYTES, 'fillers');
  const cells = new DataView(block.buffer);
  const address = (at: number, value: number): void => cells.setBigUint64(at, BigInt(block.at + value), LITTLE);
  for (let i = 0; i < FILLERS; i++) {
    address(i * header + 16, iovecs);
    cells.setBigUint64(i * header + 24, 1n, LITTLE);
  }
  address(iovecs, frame);
  cells.setBigUint64(iovecs + 8, BigInt(FILLER_BYTES), LITTLE);
  new Uint8Array(block.buffer).set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5], frame);
  return block;
}
