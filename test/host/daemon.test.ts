/**
 * sluiced as an operator meets it: the program, its socket, curl and tcpdump, and nothing of ours
 * in between. A bridge, two veth members, an outsider; protect, hold, commit; killed and started
 * again; ended with and without protection; and every way in which a start can fail.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bed } from '../../bench/bed/bed.ts';
import { end, run, runIn, sleep, startIn, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import type { FramePort } from '../../bench/bed/frame-port.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { gather } from '../support/gather.ts';
import { withBed } from '../support/with-bed.ts';
import { UNPRIVILEGED } from './privilege.ts';

const SLUICED = join(repositoryRoot(), 'bin/sluiced');
/** Longer than a ring's block timeout and any hop on the way. */
const SETTLE_MS = 150;

interface Reply {
  readonly status: number;
  readonly body: Record<string, unknown>;
}
async function curl(bed: Bed, method: string, path: string, body?: object): Promise<Reply> {
  const data = body === undefined ? [] : ['-H', 'content-type: application/json', '-d', JSON.stringify(body)];
  const out = await run('curl', ['-sS', '--unix-socket', bed.daemon().socket, '-X', method, ...data, '-w', '\n%{http_code}', `http://sluice${path}`]);
  const cut = out.lastIndexOf('\n');
  return { status: Number(out.slice(cut + 1)), body: JSON.parse(out.slice(0, cut)) as Record<string, unknown> };
}
const post = (bed: Bed, verb: string, body: object = {}): Promise<Reply> => curl(bed, 'POST', `/v1/groups/web/${verb}`, body);

/** Everything that has come out at this end since it was last asked, as hex. */
function seen(port: FramePort): string[] {
  const frames: string[] = [];
  port.drain((frame) => frames.push(Buffer.from(frame).toString('hex')));
  return frames;
}
/** What came; so many are waited for. */
async function settled(port: FramePort, least = 0): Promise<string[]> {
  const frames: string[] = [];
  await gather(() => {
    const more = seen(port);
    frames.push(...more);
    return more.length;
  }, least);
  return frames;
}

/** Numbered frames from member 0 to the outsider and to member 1. */
function sender(bed: Bed): (to: 'out' | 'member', first: number, count: number) => string[] {
  const from = bed.end(0);
  const out = probeFlow(bed.member(0).address, bed.outsider.address, 1, 200);
  const member = probeFlow(bed.member(0).address, bed.member(1).address, 2, 200);
  return (to, first, count) =>
    Array.from({ length: count }, (_, i) => {
      const frame = (to === 'out' ? out : member)(first + i).slice();
      expect(from.send(frame)).toBe(true);
      return Buffer.from(frame).toString('hex');
    });
}

async function protect(bed: Bed): Promise<void> {
  expect(await curl(bed, 'PUT', '/v1/groups/web', bed.groupFile('web'))).toMatchObject({ status: 200, body: { outcome: 'accepted' } });
  expect(await post(bed, 'protect')).toMatchObject({ status: 200, body: { generation: 1, open: 1 } });
}

describe.skipIf(UNPRIVILEGED !== undefined)('the life of sluiced', () => {
  test('frames pass inside, are held outside, and leave after their commit, byte by byte', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const [outside, inside, send] = [bed.outside(), bed.end(1), sender(bed)];
      expect(await curl(bed, 'PUT', '/v1/groups/web', bed.groupFile('web'))).toMatchObject({ status: 200 });
      const open = send('out', 0, 5);
      expect(await settled(outside, open.length)).toEqual(open); // nobody is protected yet
      seen(inside); // the bridge has flooded what it has not learned

      expect(await post(bed, 'protect')).toMatchObject({ status: 200, body: { phase: 'protected', open: 1 } });
      const capture = join(bed.directory, 'outside.pcap');
      const tcpdump = startIn(bed.outsider.namespace ?? '', 'tcpdump', ['-i', 'eth0', '--immediate-mode', '-U', '-w', capture, 'udp']);
      await until('tcpdump listens', () => tcpdump.output().includes('listening on'));
      const first = send('out', 10, 20);
      const intra = send('member', 0, 20);
      expect(await settled(inside, intra.length)).toEqual(intra);
      expect(seen(outside)).toEqual([]);
      expect(await curl(bed, 'GET', '/v1/groups/web/held')).toMatchObject({ body: { frames: 20, bytes: 4000, epochs: [{ epoch: 1, frames: 20, bytes: 4000 }] } });

      expect(await post(bed, 'cut', { generation: 1, epoch: 1 })).toMatchObject({ body: { open: 2, held: { frames: 20, bytes: 4000 } } });
      const second = send('out', 40, 20);
      expect(await settled(outside)).toEqual([]);
      await run('curl', ['-sS', '--unix-socket', bed.daemon().socket, '-o', join(bed.directory, 'held.pcapng'), 'http://sluice/v1/groups/web/held.pcapng']);
      const rows = (await run('tcpdump', ['-r', join(bed.directory, 'held.pcapng'), '-n', '-e'])).split('\n').filter((row) => row.includes('length 200'));
      expect(rows.length).toBe(40);

      expect(await post(bed, 'commit?wait=released', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { committed: 1, released: 1, held: { frames: 20 } } });
      expect(await settled(outside, first.length)).toEqual(first);
      expect(await post(bed, 'cut', { generation: 1, epoch: 2 })).toMatchObject({ body: { open: 3 } });
      expect(await post(bed, 'rollback', { generation: 1, epoch: 1 })).toMatchObject({ body: { open: 2, dropped: { discarded: 20 } } });
      expect(await settled(outside)).toEqual([]);
      expect(second.length).toBe(20);

      const captured = async (): Promise<number> => (await run('tcpdump', ['-r', capture, '-n'])).trim().split('\n').length;
      await until('tcpdump has written what it saw', async () => (await captured()) >= 20);
      await end(tcpdump, 'SIGINT');
      expect(await captured()).toBe(20);
      expect(await post(bed, 'unprotect', { generation: 1, held: 'discard' })).toMatchObject({ body: { phase: 'idle' } });
      const last = send('out', 90, 5);
      expect(await settled(outside, last.length)).toEqual(last);
    });
  });

  test('killed, it lets nothing out; started again, it goes on where the journal says', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const [outside, inside, send] = [bed.outside(), bed.end(1), sender(bed)];
      await protect(bed);
      await post(bed, 'cut', { generation: 1, epoch: 1 });
      await post(bed, 'commit?wait=released', { generation: 1, epoch: 1 });
      send('out', 0, 10);
      await bed.daemon().kill();
      send('out', 10, 10);
      expect(await settled(outside)).toEqual([]);
      const intra = send('member', 0, 10);
      expect(await settled(inside, intra.length)).toEqual(intra); // the kernel carries the group's own frames without us

      await bed.daemon().start();
      expect(await curl(bed, 'GET', '/v1/groups/web')).toMatchObject({ body: { phase: 'protected', generation: 1, open: 2, committed: 1, released: 1, held: { frames: 0 } } });
      const held = send('out', 20, 10);
      expect(await settled(outside)).toEqual([]);
      expect(await post(bed, 'cut', { generation: 1, epoch: 2 })).toMatchObject({ body: { held: { frames: 10 } } });
      expect(await post(bed, 'commit?wait=released', { generation: 1, epoch: 2 })).toMatchObject({ body: { released: 2 } });
      expect(await settled(outside, held.length)).toEqual(held);
    });
  });

  test('ended while protecting, protection stays; ended without, nothing is left behind', async () => {
    await withBed(async (bed) => {
      const pins = `/sys/fs/bpf/sluice-${bed.id}`;
      const holdDevices = async (): Promise<number> => (await run('ip', ['-n', bed.host, '-br', 'link'])).match(/^sl[hr]\d/gm)?.length ?? 0;
      await bed.daemon().start();
      const [outside, send] = [bed.outside(), sender(bed)];
      await protect(bed);
      await bed.daemon().stop();
      expect(existsSync(bed.daemon().socket)).toBe(false);
      expect(existsSync(pins)).toBe(true);
      send('out', 0, 10);
      expect(await settled(outside)).toEqual([]);

      await bed.daemon().start();
      expect(await post(bed, 'unprotect', { generation: 1, held: 'release' })).toMatchObject({ status: 200 });
      await until('it is idle', async () => (await curl(bed, 'GET', '/v1/groups/web')).body['phase'] === 'idle');
      await bed.daemon().stop();
      expect(existsSync(pins)).toBe(false);
      expect(await holdDevices()).toBe(0);
      const free = send('out', 10, 10);
      expect(await settled(outside, free.length)).toEqual(free);
    });
  });

  test('what was sealed before a kill is released by its commit after the restart', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      await protect(bed);
      sender(bed)('out', 0, 5);
      await post(bed, 'cut', { generation: 1, epoch: 1 });
      await bed.daemon().kill();
      await bed.daemon().start();
      expect(await post(bed, 'commit?wait=released&timeoutMs=5000', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { committed: 1, released: 1 } });
      expect(await settled(bed.outside())).toEqual([]); // what was held died with the daemon
    });
  });

  test('a member leaves while it sends without a pause, and so does the daemon', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const send = sender(bed);
      await curl(bed, 'PUT', '/v1/groups/web', bed.groupFile('web'));
      let sending = true;
      const [name] = ((await curl(bed, 'GET', '/v1/groups/web')).body['members'] as { name: string }[]).map((member) => member.name);
      const flood = (async () => {
        // Denser than a ring block's millisecond: something is on its way at every instant.
        for (let at = 0; sending; at += 2) {
          send('out', at, 2);
          await new Promise(setImmediate);
        }
      })();
      try {
        for (const held of ['release', 'discard']) {
          const { body } = await post(bed, 'protect');
          expect(await curl(bed, 'DELETE', `/v1/groups/web/members/${name}?held=${held}`)).toMatchObject({ status: 200 });
          expect(await post(bed, 'cut', { generation: body['generation'], epoch: 1 })).toMatchObject({ status: 200, body: { open: 2 } });
          expect(await post(bed, 'unprotect', { generation: body['generation'], held: 'discard' })).toMatchObject({ status: 200 });
          await curl(bed, 'PUT', '/v1/groups/web', bed.groupFile('web'));
        }
        const { body } = await post(bed, 'protect');
        expect(await post(bed, 'unprotect', { generation: body['generation'], held: 'release' })).toMatchObject({ status: 200 });
        await until('it is idle', async () => (await curl(bed, 'GET', '/v1/groups/web')).body['phase'] === 'idle');
        await post(bed, 'protect');
        const leaving = curl(bed, 'DELETE', `/v1/groups/web/members/${name}?held=release`).catch((error: unknown) => String(error));
        await sleep(SETTLE_MS);
        await bed.daemon().stop();
        await leaving;
      } finally {
        sending = false;
        await flood;
      }
    });
  });

  test('a hold pair deleted by another tool: what it held is lost, and the group has a ring again', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const [outside, send] = [bed.outside(), sender(bed)];
      await protect(bed);
      send('out', 0, 10);
      await until('they are held', async () => (await curl(bed, 'GET', '/v1/groups/web/held')).body['frames'] === 10);
      await run('ip', ['-n', bed.host, 'link', 'del', 'slr0']);
      await until('it is mended', async () => (await curl(bed, 'GET', '/readyz')).status === 200 && (await curl(bed, 'GET', '/v1/groups/web/held')).body['frames'] === 0);
      expect(await settled(outside)).toEqual([]); // what was held is lost
      const held = send('out', 20, 10);
      await until('new ones are held', async () => (await curl(bed, 'GET', '/v1/groups/web/held')).body['frames'] === 10);
      expect(await post(bed, 'cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { open: 2 } });
      expect(await settled(outside)).toEqual([]);
      expect(await post(bed, 'commit?wait=released', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { released: 1 } });
      expect(await settled(outside, held.length)).toEqual(held);
    });
  });

  test('an uncaught exception ends it before anything else is served', async () => {
    await withBed(async (bed) => {
      const preload = join(bed.directory, 'fault.mjs');
      writeFileSync(preload, "process.on('SIGUSR2', () => { setImmediate(() => process._rawDebug('another turn')); throw new Error('by chance'); });");
      const program = [SLUICED, '--control-socket', bed.daemon().socket, '--state', join(bed.directory, 'state'), '--pins', `/sys/fs/bpf/sluice-${bed.id}`];
      const running = startIn(bed.host, process.execPath, program, { NODE_OPTIONS: `--import=${preload}` });
      await until('it is ready', () => running.output().includes('"ready"'));
      running.child.kill('SIGUSR2');
      expect(await running.ended, running.output()).toBe(1);
      expect(running.output()).toMatch(/sluiced ends.*|by chance/);
      expect(running.output()).not.toContain('another turn');
    });
  });

  test('a takeover starts protection where the other host left off, and says where the group is now', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      const [outside, send] = [bed.outside(), sender(bed)];
      await curl(bed, 'PUT', '/v1/groups/web', bed.groupFile('web'));
      expect(await post(bed, 'takeover', { generation: 7, epoch: 3 })).toMatchObject({ status: 200, body: { generation: 7, open: 4, sealed: 3, committed: 3, released: 3 } });
      // Said three times (announce.test.ts): how many of them by now is the clock's affair.
      const announced: string[] = [];
      await until('every place was announced', async () => {
        announced.push(...(await settled(outside)).map((frame) => `${frame.slice(24, 28)} ${frame.slice(12, 24)}`));
        return new Set(announced).size >= bed.members.length;
      }, 20_000);
      expect(new Set(announced)).toEqual(new Set(bed.members.map(({ mac }) => `8035 ${mac.replaceAll(':', '')}`)));
      send('out', 0, 3);
      expect((await settled(outside)).filter((frame) => frame.slice(24, 28) !== '8035')).toEqual([]);
      expect(await post(bed, 'cut', { generation: 6, epoch: 4 })).toMatchObject({ status: 409, body: { code: 'fenced', generation: 7, open: 4 } });
    });
  });

  test('ended in the middle of requests, it breaks off none', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      await protect(bed);
      // Cuts in a row from several clients: at any moment some are under way.
      const outcomes: (number | string)[] = [];
      let ended = false;
      const client = async (): Promise<void> => {
        for (let epoch = 1; !ended; epoch++) {
          const outcome = await post(bed, 'cut', { generation: 1, epoch }).then(({ status }) => status, (error: unknown) => String(error));
          outcomes.push(outcome);
          if (typeof outcome === 'string') return;
        }
      };
      const clients = Promise.all(Array.from({ length: 4 }, client));
      await until('they are under way', () => outcomes.length > 20);
      await bed.daemon().stop();
      ended = true;
      await clients;
      // Answered, or not let in (curl 7): never an empty reply (52) or a reset (56).
      for (const outcome of outcomes) expect(String(outcome)).toMatch(/^(200|409|429|503)$|\(7\)/);
      expect(outcomes).toContain(200);
    });
  });

  test('the socket is for its owner and group; the capture, events and metrics are there', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      await protect(bed);
      expect(statSync(bed.daemon().socket).mode & 0o777).toBe(0o660);
      const events = run('curl', ['-sN', '--max-time', '2', '--unix-socket', bed.daemon().socket, 'http://sluice/v1/events?group=web']).catch((error: unknown) => String(error));
      const follower = startIn(bed.host, 'curl', ['-sN', '--unix-socket', bed.daemon().socket, 'http://sluice/v1/events?group=web']);
      await until('it follows', () => follower.output().includes('retry:'));
      sender(bed)('out', 0, 1);
      await until('output is announced', () => follower.output().includes('event: output-pending'));
      await post(bed, 'cut', { generation: 1, epoch: 1 });
      await post(bed, 'commit?wait=released', { generation: 1, epoch: 1 });
      await until('all is told', () => /event: cut[^]*event: committed[^]*event: released/.test(follower.output()));
      await end(follower);
      const metrics = await run('curl', ['-sS', '--unix-socket', bed.daemon().socket, 'http://sluice/metrics']);
      expect(metrics).toContain('sluice_released_frames_total{group="web"} 1');
      expect(metrics).toContain('sluice_hold_seconds_count{group="web"} 1');
      expect(metrics).toMatch(/sluice_port_frames_total\{group="web",port="port1",verdict="held"\} 1/);
      expect(metrics).toMatch(/sluice_leak_blocked_frames_total\{[^}]*\} 0/);
      await events;
    });
  });
});

describe.skipIf(UNPRIVILEGED !== undefined)('a start that fails says why in one line and exits 1', () => {
  async function fails(bed: Bed, flags: readonly string[], prefix: readonly string[] = []): Promise<string> {
    const program = [...prefix, process.execPath, SLUICED, ...flags];
    const running = startIn(bed.host, 'timeout', ['20', ...program]);
    const code = await running.ended;
    expect(code, running.output()).toBe(1);
    const lines = running.output().trim().split('\n');
    expect(lines.length, running.output()).toBe(1);
    expect(lines[0]).not.toMatch(/^\s+at |\.js:\d+/);
    return lines[0] ?? '';
  }
  const flags = (bed: Bed, name: string): string[] => [
    '--control-socket', join(bed.directory, `${name}.sock`), '--state', join(bed.directory, name), '--pins', `/sys/fs/bpf/sluice-${bed.id}-${name}`, '--log-level', 'fatal',
  ];

  test('wrong settings, no privilege, in use, damaged', async () => {
    await withBed(async (bed) => {
      const file = join(bed.directory, 'bad.yaml');
      writeFileSync(file, 'host: h\nplane: pcap\n');
      expect(await fails(bed, ['--config', file])).toMatch(/plane: pcap needs pcap\.ports: .*add it$/);
      expect(await fails(bed, [...flags(bed, 'a'), '--control-tcp-listen', '127.0.0.1:7443'])).toMatch(/open to everyone/);
      expect(await fails(bed, flags(bed, 'a'), ['setpriv', '--bounding-set=-all', '--inh-caps=-all'])).toMatch(/lacks CAP_NET_ADMIN.*run it as root/);

      await bed.daemon().start();
      const second = flags(bed, 'b');
      expect(await fails(bed, [...second, '--control-socket', bed.daemon().socket])).toMatch(/in use by a running daemon/);
      expect(await fails(bed, [...second, '--state', join(bed.directory, 'state')])).toMatch(/in use by another sluiced/);
      expect(await fails(bed, [...second, '--control-socket', join(bed.directory, 'none', '\u0001', 'x'.repeat(80), 's')])).toMatch(/control-socket/);
      expect(existsSync(`/sys/fs/bpf/sluice-${bed.id}-b`)).toBe(false);

      const damaged = join(bed.directory, 'c');
      await protectAndDamage(bed, damaged);
      expect(await fails(bed, flags(bed, 'c'))).toMatch(/^sluiced: .*journal.*; /);
      expect(readdirSync('/sys/fs/bpf').filter((name) => name === `sluice-${bed.id}-c`)).toEqual([]);
      expect(await fails(bed, [...second, '--pins', `/sys/fs/bpf/sluice-${bed.id}`]), 'also where they went and came back with the group').toMatch(/pins .* are in use by another sluiced; stop that one/);
    });
  });

  /** A journal of the running daemon with a byte turned in its middle, as a bad disk leaves it. */
  async function protectAndDamage(bed: Bed, into: string): Promise<void> {
    await protect(bed);
    for (let epoch = 1; epoch <= 20; epoch++) await post(bed, 'cut', { generation: 1, epoch });
    const state = join(bed.directory, 'state');
    mkdirSync(into);
    for (const name of readdirSync(state)) {
      const bytes = readFileSync(join(state, name));
      const text = bytes.indexOf('"sealed"');
      if (text > 0) bytes[text + 2] = (bytes[text + 2] ?? 0) ^ 1;
      writeFileSync(join(into, name), bytes);
    }
  }

  test('ports that an earlier life had closed are opened, though the ledger and isolation are out of the settings', async () => {
    await withBed(async (bed) => {
      const { port } = bed.member(0);
      const isUp = async (): Promise<boolean> => /<[^>]*\bUP\b/.test(await runIn(bed.host, 'ip', ['link', 'show', port]));
      const named = join(bed.directory, 'state', 'closed-ports.json');
      mkdirSync(join(bed.directory, 'state'), { mode: 0o700 });
      writeFileSync(named, JSON.stringify([port]));
      for (const each of [port, bed.member(1).port]) await runIn(bed.host, 'ip', ['link', 'set', each, 'down']);
      await bed.daemon().start();
      await until('it is up again', isUp);
      expect(existsSync(named)).toBe(false);
      expect(await runIn(bed.host, 'ip', ['link', 'show', bed.member(1).port]), 'the operator\'s own').not.toMatch(/<[^>]*\bUP\b/);
    });
  });

  test('a lost journal: what is protected stays held', async () => {
    await withBed(async (bed) => {
      await bed.daemon().start();
      await protect(bed);
      const eye = bed.outside();
      await bed.daemon().kill();
      rmSync(join(bed.directory, 'state', 'journal'));
      expect(await fails(bed, ['--config', join(bed.directory, 'sluice.yaml')])).toMatch(/not in the journal.*stays held.*restore the journal/);
      seen(eye);
      const sent = sender(bed)('out', 0, 100);
      expect((await settled(eye)).filter((frame) => sent.includes(frame))).toEqual([]);
    });
  });

  test('no bpf file system, and no right to mount one', async () => {
    await withBed(async (bed) => {
      const start = `umount /sys/fs/bpf; mount -t tmpfs none /sys/fs/bpf; exec setpriv --bounding-set=-sys_admin "$@"`;
      expect(await fails(bed, flags(bed, 'd'), ['unshare', '--mount', 'sh', '-c', start, 'sh'])).toMatch(/\/sys\/fs\/bpf is not a bpf file system/);
    });
  });
});
