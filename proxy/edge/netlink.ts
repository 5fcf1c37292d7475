/**
 * Devices as the kernel tells them: one request at a time over rtnetlink, and a watch.
 *
 *   request ─► socket ─► replies until ACK or DONE      synchronous, well under a millisecond
 *   watch   ─► socket in the groups LINK and TC ─► "something changed"      no detail: whoever
 *              listens looks at the whole again, so a lost message (ENOBUFS) costs nothing
 *
 *   watchNftables ─► the same of nftables, for tables and chains alone
 *
 * Not /sys: the daemon may live in a network namespace whose /sys is another's. Sockets belong to
 * the namespace of the thread that made them. Bounds: a reply of RECEIVE_BYTES, a wait of
 * TIMEOUT_MS; beyond them the request fails.
 */
import { close, bind, errno, must, setOption, socket, EAGAIN, EINTR, ENOBUFS, ENOENT, MSG_DONTWAIT, SystemError } from './ffi/libc.ts';
import { LITTLE, fixedBytes } from './ffi/struct.ts';
import { attachFilter, pollReadable, receive, send } from './ffi/sys.ts';
import { FLAG, Message, TYPE, attributes, replies } from './netlink-message.ts';
import type { Reply } from './netlink-message.ts';

const AF_NETLINK = 16;
const AF_INET6 = 10;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const TIMEOUT_MS = 5000;
const RECEIVE_BYTES = 1 << 18;

const IFLA = { address: 1, name: 3, mtu: 4, link: 5, qdisc: 6, master: 10, linkInfo: 18, alias: 20, afSpec: 26, txQueues: 31, rxQueues: 32, linkNamespace: 37 } as const;
const INFO = { kind: 1, data: 2 } as const;
const VETH_PEER = 1;
const VXLAN = { learning: 7, port: 15, gbp: 23, external: 25 } as const;
const INET6_ADDR_GEN_MODE = 8;
const ADDR_GEN_NONE = 1;
const IFF_UP = 0x1;
const IFF_NOARP = 0x80;
const NDA_LLADDR = 2;
const NUD_NOARP = 0x40;
const NUD_PERMANENT = 0x80;
const GROUPS_LINK_TC = 0x1 | 0x8;
const NETLINK_NETFILTER = 12;
const GROUP_NFTABLES = 1 << 6;
/** New and deleted tables and chains: the subsystem is the high byte. */
const NFT_TABLE_OR_CHAIN: readonly number[] = [0x0a00, 0x0a02, 0x0a03, 0x0a05];

/** Handles of lanes' gates: of their major number's two bytes, the upper. */
export const GATE_HANDLES = 0x51;
/** Passes all but new qdiscs with such a handle: a changed one is told as a new one. Byte order of the machine in the message, of the network in the filter. */
const NOT_GATES: readonly (readonly [code: number, jumpTrue: number, jumpFalse: number, value: number])[] = [
  [0x28, 0, 0, 4], // half word: nlmsg_type
  [0x15, 0, 3, LITTLE ? 0x2400 : 0x0024], // RTM_NEWQDISC
  [0x30, 0, 0, LITTLE ? 27 : 24], // byte: the upper one of tcm_handle
  [0x15, 0, 1, GATE_HANDLES],
  [0x06, 0, 0, 0],
  [0x06, 0, 0, 0xffff_ffff],
];

export const EEXIST = 17;
export const ENODEV = 19;

export interface Link {
  readonly ifindex: number;
  readonly name: string;
  /** ifindex of the bridge (or other master) it is in, 0 = none. */
  readonly master: number;
  /** Lower case, colon separated; empty where it has none. */
  readonly mac: string;
  /** 'bridge', 'veth', 'tun', …; empty for hardware. */
  readonly kind: string;
  readonly alias: string;
  readonly mtu: number;
  readonly up: boolean;
  /** ifindex of a veth's other end, where that is in this namespace. */
  readonly peer?: number;
  /** Of the device's root; 'noqueue' for most virtual ones. */
  readonly qdisc: string;
  /** Of a VXLAN device. */
  readonly vxlan?: Vxlan;
}
/** `external`: where a frame goes is said with each frame. `gbp`: a group policy id goes with it. */
export interface Vxlan {
  readonly port: number;
  readonly external: boolean;
  readonly gbp: boolean;
}

// ------------------------------------------------------------------------------------- replies

const asText = (value: DataView | undefined): string =>
  value === undefined ? '' : Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8').replace(/\0+$/, '');
const asMac = (value: DataView | undefined): string =>
  value === undefined ? '' : Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex').replace(/(..)(?!$)/g, '$1:');

function linkOf(body: DataView): Link {
  const found = attributes(body, 16);
  const info = found.get(IFLA.linkInfo);
  const kind = info === undefined ? '' : asText(attributes(info, 0).get(INFO.kind));
  const data = info === undefined ? undefined : attributes(info, 0).get(INFO.data);
  const peer = kind === 'veth' && !found.has(IFLA.linkNamespace) ? found.get(IFLA.link)?.getUint32(0, LITTLE) : undefined;
  return {
    ifindex: body.getInt32(4, LITTLE),
    name: asText(found.get(IFLA.name)),
    master: found.get(IFLA.master)?.getUint32(0, LITTLE) ?? 0,
    mac: asMac(found.get(IFLA.address)),
    kind,
    alias: asText(found.get(IFLA.alias)),
    mtu: found.get(IFLA.mtu)?.getUint32(0, LITTLE) ?? 0,
    up: (body.getUint32(8, LITTLE) & IFF_UP) !== 0,
    qdisc: asText(found.get(IFLA.qdisc)),
    ...(peer === undefined ? {} : { peer }),
    ...(kind === 'vxlan' && data !== undefined ? { vxlan: vxlanOf(data) } : {}),
  };
}
function vxlanOf(data: DataView): Vxlan {
  const found = attributes(data, 0);
  return { port: found.get(VXLAN.port)?.getUint16(0, false) ?? 0, external: (found.get(VXLAN.external)?.getUint8(0) ?? 0) !== 0, gbp: found.has(VXLAN.gbp) };
}
const macBytes = (mac: string): Uint8Array => Uint8Array.from(Buffer.from(mac.replaceAll(':', ''), 'hex'));

// -------------------------------------------------------------------------------------- socket

export function openSocket(groups: number, protocol = 0): number {
  const fd = must(socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol), 'socket', 'netlink');
  const name = new Uint8Array(12);
  const view = new DataView(name.buffer);
  view.setUint16(0, AF_NETLINK, LITTLE);
  view.setUint32(8, groups, LITTLE);
  bind(fd, name, 'netlink');
  return fd;
}

export interface Veth {
  readonly name: string;
  readonly peer: string;
  /** Queues to send by, of the first end; unless given, as the kernel makes them. */
  readonly queues?: number;
}
export interface Watch {
  close(): void;
}

/** `listener` hears of every read that held, or may have held, a message of a wanted type. */
function listen(fd: number, wanted: (type: number) => boolean, listener: () => void): Watch {
  setOption(fd, SOL_SOCKET, SO_RCVBUF, [1 << 20], 'netlink buffer');
  const buffer = fixedBytes(RECEIVE_BYTES);
  const poll = pollReadable(fd, () => {
    let heard = false;
    for (;;) {
      const length = receive(fd, buffer, buffer.length, MSG_DONTWAIT);
      if (length > 0) heard ||= typesIn(buffer, length).some(wanted);
      else if (errno() === ENOBUFS) heard = true;
      else break;
    }
    if (heard) listener();
  });
  return {
    close: () => {
      poll.close();
      close(fd);
    },
  };
}
function typesIn(buffer: Uint8Array, length: number): number[] {
  const view = new DataView(buffer.buffer, buffer.byteOffset, length);
  const types: number[] = [];
  for (let at = 0; at + 16 <= length;) {
    types.push(view.getUint16(at + 4, LITTLE));
    at += (Math.max(16, view.getUint32(at, LITTLE)) + 3) & ~3;
  }
  return types;
}

/** Tells when a table or chain of nftables has come, gone or changed, in this namespace; rules and sets it does not. */
export function watchNftables(listener: () => void): Watch {
  return listen(openSocket(GROUP_NFTABLES, NETLINK_NETFILTER), (type) => NFT_TABLE_OR_CHAIN.includes(type), listener);
}

export class Netlink {
  /** -1 once closed: the number may be another file's by then. */
  #fd: number;
  readonly #buffer = fixedBytes(RECEIVE_BYTES);
  #sequence = 0;

  constructor() {
    this.#fd = openSocket(0);
    setOption(this.#fd, SOL_SOCKET, SO_RCVTIMEO, [TIMEOUT_MS / 1000, 0, 0, 0], 'netlink timeout');
  }
  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  links(): Link[] {
    const found: Link[] = [];
    this.#request(new Message(TYPE.getLink, FLAG.dump).link(0), (reply) => {
      if (reply.type === TYPE.newLink) found.push(linkOf(reply.body));
    });
    return found;
  }

  /** Both ends, down, in this namespace. */
  addVeth(veth: Veth, mtu: number): void {
    const queued = (message: Message, queues: number): Message => (veth.queues === undefined ? message : message.u32(IFLA.txQueues, queues).u32(IFLA.rxQueues, 1));
    const message = queued(new Message(TYPE.newLink, FLAG.ack | FLAG.create | FLAG.excl).link(0), veth.queues ?? 1)
      .text(IFLA.name, veth.name).u32(IFLA.mtu, mtu)
      .nest(IFLA.linkInfo, (m) => {
        m.text(INFO.kind, 'veth').nest(INFO.data, (d) => {
          d.nest(VETH_PEER, (p) => {
            queued(p.link(0), 1).text(IFLA.name, veth.peer).u32(IFLA.mtu, mtu);
          });
        });
      });
    this.#request(message);
  }
  /** External, with group policy ids, learning nothing; down. */
  addVxlan(name: string, port: number): void {
    const message = new Message(TYPE.newLink, FLAG.ack | FLAG.create | FLAG.excl).link(0)
      .text(IFLA.name, name)
      .nest(IFLA.linkInfo, (m) => {
        m.text(INFO.kind, 'vxlan').nest(INFO.data, (d) => {
          d.bytes(VXLAN.external, Uint8Array.of(1)).bytes(VXLAN.learning, Uint8Array.of(0)).bytes(VXLAN.gbp, new Uint8Array(0))
            .bytes(VXLAN.port, Uint8Array.of(port >> 8, port & 0xff));
        });
      });
    this.#request(message);
  }
  /** No addresses, no ARP, and whose it is. */
  quieten(ifindex: number, alias: string): void {
    this.#request(new Message(TYPE.newLink, FLAG.ack).link(ifindex, IFF_NOARP, IFF_NOARP).text(IFLA.alias, alias));
    const noAddresses = new Message(TYPE.newLink, FLAG.ack).link(ifindex).nest(IFLA.afSpec, (m) => {
      m.nest(AF_INET6, (a) => {
        a.bytes(INET6_ADDR_GEN_MODE, Uint8Array.of(ADDR_GEN_NONE));
      });
    });
    // A kernel without IPv6 has nothing to switch off.
    this.#request(noAddresses, undefined, [97, 95, 22]);
  }
  setUp(ifindex: number): void {
    this.#request(new Message(TYPE.newLink, FLAG.ack).link(ifindex, IFF_UP, IFF_UP));
  }
  /** Gone already is fine. */
  setDown(ifindex: number): void {
    this.#request(new Message(TYPE.newLink, FLAG.ack).link(ifindex, 0, IFF_UP), undefined, [ENODEV]);
  }
  /** Gone already is fine. */
  deleteLink(ifindex: number): void {
    this.#request(new Message(TYPE.delLink, FLAG.ack).link(ifindex), undefined, [ENODEV]);
  }

  /** A static forwarding entry of the port's bridge. False where the operator has one there. */
  addForwarding(ifindex: number, mac: string): boolean {
    if (this.#isStatic(ifindex, mac)) return false;
    const message = new Message(TYPE.newNeigh, FLAG.ack | FLAG.create | FLAG.replace).neighbour(ifindex, NUD_NOARP);
    this.#request(message.bytes(NDA_LLADDR, macBytes(mac)));
    return true;
  }
  deleteForwarding(ifindex: number, mac: string): void {
    const message = new Message(TYPE.delNeigh, FLAG.ack).neighbour(ifindex, NUD_NOARP).bytes(NDA_LLADDR, macBytes(mac));
    this.#request(message, undefined, [ENOENT, ENODEV, 22, 95]);
  }
  #isStatic(ifindex: number, mac: string): boolean {
    let isStatic = false;
    const message = new Message(TYPE.getNeigh, 0).neighbour(ifindex, 0).bytes(NDA_LLADDR, macBytes(mac));
    this.#request(message, (reply) => {
      const sameport = reply.body.getInt32(4, LITTLE) === ifindex;
      isStatic = reply.type === TYPE.newNeigh && sameport && (reply.body.getUint16(8, LITTLE) & (NUD_NOARP | NUD_PERMANENT)) !== 0;
    }, [ENOENT, 95, 22]);
    return isStatic;
  }

  /** Calls `listener` after devices or qdiscs changed; of lanes' gates that open and shut it hears nothing. */
  watch(listener: () => void): Watch {
    const fd = openSocket(GROUPS_LINK_TC);
    attachFilter(fd, NOT_GATES);
    return listen(fd, () => true, listener);
  }

  /** Sends, and reads to the end of the answer. Errors in `fine` count as done. */
  #request(message: Message, onReply?: (reply: Reply) => void, fine: readonly number[] = []): void {
    this.#sequence += 1;
    const bytes = message.finish(this.#sequence);
    if (send(this.#fd, bytes, bytes.length, 0) < 0) throw new SystemError('netlink send', '', errno());
    while (!this.#receive(onReply, fine));
  }
  /** True at the end of the answer. */
  #receive(onReply: ((reply: Reply) => void) | undefined, fine: readonly number[]): boolean {
    const length = receive(this.#fd, this.#buffer, this.#buffer.length, 0);
    if (length < 0) {
      if (errno() === EINTR) return false;
      throw new SystemError('netlink receive', errno() === EAGAIN ? `no answer in ${TIMEOUT_MS} ms` : '', errno());
    }
    for (const reply of replies(this.#buffer, length, this.#sequence)) {
      if (reply.type === TYPE.done) return true;
      if (reply.type === TYPE.error) {
        const code = -reply.body.getInt32(0, LITTLE);
        if (code !== 0 && !fine.includes(code)) throw new SystemError('netlink', '', code);
        return true;
      }
      onReply?.(reply);
      if (reply.type === TYPE.newNeigh) return true;
    }
    return false;
  }
}
