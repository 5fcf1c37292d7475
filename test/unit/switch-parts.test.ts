/** The small parts of the portable plane: forwarding table, hold queue, message stream, served ports. */
import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import { AGE_MS, ENTRIES_MAX, ForwardingTable } from '../../proxy/switch/fdb.ts';
import { SOFT_BLOCK_FRAMES_MAX, SoftQueue } from '../../proxy/plane/soft-queue.ts';
import { Unpacker, packed } from '../../proxy/switch/protocol.ts';
import { ServedPorts } from '../../proxy/switch/served.ts';
import type { Device } from '../../proxy/switch/served.ts';
import { FrameTable, Intake } from '../../proxy/ring/frames.ts';

describe('forwarding table', () => {
  test('learns, moves, ages, and keeps what is static', () => {
    const table = new ForwardingTable();
    expect(table.find(1, 0)).toBeUndefined();
    table.heard(1, 10, 0);
    table.heard(1, 11, 5);
    expect(table.find(1, 5 + AGE_MS)).toBe(11);
    expect(table.find(1, 6 + AGE_MS)).toBeUndefined();
    table.fix(1, 12);
    table.heard(1, 10, 20);
    expect(table.find(1, 20)).toBe(12);
    table.unfix(1, 99);
    expect(table.find(1, 20)).toBe(12);
    table.unfix(1, 12);
    expect(table.find(1, 20)).toBe(10);
    table.forgetPort(10);
    expect(table.find(1, 20)).toBeUndefined();
  });
  test('at its bound the older half goes', () => {
    const table = new ForwardingTable();
    for (let mac = 0; mac <= ENTRIES_MAX; mac++) table.heard(mac, 1, mac);
    expect(table.find(0, ENTRIES_MAX)).toBeUndefined();
    expect(table.find(ENTRIES_MAX - 1, ENTRIES_MAX)).toBe(1);
    expect(table.find(ENTRIES_MAX, ENTRIES_MAX)).toBe(1);
  });
});

describe('hold queue', () => {
  test('what is pushed comes out, byte for byte and in order, whatever the sizes and the blocks given back', () => {
    fc.assert(fc.property(fc.array(fc.record({ bytes: fc.integer({ min: 14, max: 65_000 }), take: fc.boolean() }), { minLength: 1, maxLength: 60 }), (steps) => {
      const out: [number, string][] = [];
      const queue = new SoftQueue(16 << 20, (stamp, frame) => out.push([stamp, frame.toString('hex')]), () => undefined);
      const intake = new Intake(SOFT_BLOCK_FRAMES_MAX);
      const table = new FrameTable(SOFT_BLOCK_FRAMES_MAX);
      const sent: [number, string][] = [];
      const drain = (): void => {
        for (let block = queue.take(intake); block >= 0; block = queue.take(intake)) {
          for (let i = 0; i < intake.count; i++) {
            table.stamp[0] = intake.stamp[i] ?? 0;
            table.offset[0] = intake.offset[i] ?? 0;
            table.length[0] = intake.length[i] ?? 0;
            queue.send(table, Int32Array.of(0), 1);
          }
          queue.giveBack(block);
        }
      };
      for (const [i, { bytes, take }] of steps.entries()) {
        const frame = Buffer.alloc(bytes, i + 1);
        queue.push(0x8000_0001 + i, frame, Date.now());
        sent.push([0x8000_0001 + i, frame.toString('hex')]);
        if (take) drain();
      }
      drain();
      expect(queue.drops()).toBe(0);
      expect(out).toEqual(sent);
    }), { numRuns: 30 });
  });
  test('full, it drops and counts, and takes frames again when a block came back', () => {
    const queue = new SoftQueue(1, () => undefined, () => undefined);
    const intake = new Intake(SOFT_BLOCK_FRAMES_MAX);
    const frame = Buffer.alloc(60_000);
    for (let i = 0; i < queue.ringBlocks * 4 + 10; i++) queue.push(1, frame, 0);
    expect(queue.drops()).toBe(10);
    expect(queue.drops()).toBe(0);
    const block = queue.take(intake);
    queue.push(1, frame, 0);
    expect(queue.drops(), 'handed over is not given back').toBe(1);
    queue.giveBack(block);
    queue.push(1, frame, 0);
    expect(queue.drops()).toBe(0);
  });
});

test('the stream is cut into the messages that were put in, however it is chunked', () => {
  const messages = [{ op: 'passed', call: 1 }, { bytes: new Uint8Array(1000).fill(7) }, 'x'.repeat(500), 5];
  const bytes = Buffer.concat(messages.map(packed));
  for (const size of [1, 3, 64, bytes.length]) {
    const inbox = new Unpacker();
    const got: unknown[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      inbox.add(bytes.subarray(at, at + size));
      for (let message = inbox.next(); message !== undefined; message = inbox.next()) got.push(message);
    }
    expect(got).toEqual(messages);
  }
});

describe('served ports', () => {
  const device = (name: string, ifindex: number, extra: Partial<Device> = {}): Device => ({ name, ifindex, mtu: 1500, up: true, master: 0, ...extra });
  async function served(devices: readonly Device[], later: readonly Device[] = devices): Promise<{ said: string[]; missing: string[] }> {
    const said: string[] = [];
    let now = devices;
    const ports = new ServedPorts(['a', 'b'], { links: () => now, watch: () => ({ close: () => undefined }) }, {
      serve: (wanted) => {
        said.push(`serve ${wanted.map(({ ifindex }) => ifindex).join(' ')}`);
        return Promise.resolve(wanted.filter(({ up }) => up).map(({ ifindex }) => ifindex));
      },
    }, {
      around: (names) => said.push(`fence ${names.join(' ')}`),
      whole: () => true,
      watch: () => ({ close: () => undefined }),
    }, () => {
      said.push('gate');
      now = later;
      return Promise.resolve();
    });
    expect(ports.missing()).toEqual(['its ports are not served yet']);
    await ports.begin();
    ports.close();
    return { said, missing: ports.missing() };
  }

  test('first the gate, then the fence, then the port; others of the machine are left alone', async () => {
    expect(await served([device('a', 1), device('b', 2), device('c', 3)])).toEqual({ said: ['gate', 'fence a b', 'serve 1 2'], missing: [] });
  });
  test('a port in a bridge is fenced and not served; what is missing is said', async () => {
    const { said, missing } = await served([device('a', 1, { master: 9 })]);
    expect(said).toEqual(['gate', 'fence a', 'serve ']);
    expect(missing).toEqual(['port a of pcap.ports is in a bridge: ip link set a nomaster', 'port b of pcap.ports does not exist']);
  });
  test('a port that comes while the gate looks is not served before the gate has seen it', async () => {
    const { said, missing } = await served([device('a', 1)], [device('a', 1), device('b', 2)]);
    expect(said).toEqual(['gate', 'fence a b', 'serve 1']);
    expect(missing).toEqual(['port b of pcap.ports is not open yet']);
  });
  test('a port that is down waits for it', async () => {
    expect((await served([device('a', 1), device('b', 2, { up: false })])).missing).toEqual(['port b of pcap.ports is down']);
  });
});
