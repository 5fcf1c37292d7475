/**
 * A flood of minimum-size frames from a packet socket, as fast as one core sends them.
 *
 *   node flood.js <namespace> <device> <dst mac> <src mac> <seconds>     prints {"sent":…}
 *
 * A process of its own, pinned by its starter: the measured path must not share the event loop with
 * its sender. sendmmsg of 64 prepared messages, one buffer of 60 bytes, past the qdisc. Frames that
 * the kernel had no room for are not counted as sent.
 */
import { fileURLToPath } from 'node:url';
import { run, start, type Running } from './commands.ts';
import { EAGAIN, ENOBUFS, SystemError, errno, nativeMemory, nowUs, sendmmsg } from './libc.ts';
import { openSender } from './packet-port.ts';
import { ipBytes, macBytes, probeFlow } from './probe.ts';
import type { Place } from './bed.ts';

const BATCH = 64;
const HEADER_BYTES = 64;
const ROUNDS_PER_CLOCK = 16;

function flood(namespace: string, device: string, to: string, from: string, seconds: number): number {
  const fd = openSender({ namespace, device, bypass: true });
  const frame = probeFlow({ mac: macBytes(from), ip: ipBytes('10.81.0.1') }, { mac: macBytes(to), ip: ipBytes('10.81.0.254') }, 9999)(0);
  const memory = nativeMemory(BATCH * (HEADER_BYTES + 16) + 64);
  const iovecs = BATCH * HEADER_BYTES;
  const bytes = iovecs + BATCH * 16;
  memory.bytes.set(frame, bytes);
  for (let i = 0; i < BATCH; i++) {
    memory.view.setBigUint64(i * HEADER_BYTES + 16, memory.address + BigInt(iovecs + i * 16), true);
    memory.view.setBigUint64(i * HEADER_BYTES + 24, 1n, true);
    memory.view.setBigUint64(iovecs + i * 16, memory.address + BigInt(bytes), true);
    memory.view.setBigUint64(iovecs + i * 16 + 8, BigInt(frame.length), true);
  }
  let sent = 0;
  for (const endUs = nowUs() + seconds * 1e6; nowUs() < endUs;) {
    for (let i = 0; i < ROUNDS_PER_CLOCK; i++) {
      const n = sendmmsg(fd, memory.address, BATCH, 0);
      if (n >= 0) sent += n;
      else if (errno() !== EAGAIN && errno() !== ENOBUFS) throw new SystemError('sendmmsg', errno());
    }
  }
  return sent;
}

/** Frames a second that a flood of 60-byte frames brings to `to`, by its device's counter. */
export async function floodRate(from: Place, to: Place, seconds: number, cpu: number): Promise<{ offered: number; received: number }> {
  const there = to.namespace ?? '';
  const before = await receivedFrames(there);
  const beginUs = nowUs();
  const running = startFlood(from, to, seconds, cpu);
  const code = await running.ended;
  const tookS = (nowUs() - beginUs) / 1e6;
  if (code !== 0) throw new Error(`flood: ${code}: ${running.output()}`);
  const { sent } = JSON.parse(running.output().trim().split('\n').at(-1) ?? '') as { sent: number };
  const received = (await receivedFrames(there)) - before;
  return { offered: sent / Math.min(tookS, seconds), received: received / seconds };
}

export function startFlood(from: Place, to: Place, seconds: number, cpu: number): Running {
  const self = fileURLToPath(import.meta.url);
  const node = self.endsWith('.ts') ? [process.execPath, '--import', 'tsx'] : [process.execPath];
  return start('taskset', ['-c', String(cpu), ...node, self, from.namespace ?? '', 'eth0', to.mac, from.mac, String(seconds)]);
}

async function receivedFrames(namespace: string): Promise<number> {
  const links = JSON.parse(await run('ip', ['-n', namespace, '-s', '-j', 'link', 'show', 'eth0'])) as [{ stats64: { rx: { packets: number } } }];
  return links[0].stats64.rx.packets;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [namespace = '', device = '', to = '', from = '', seconds = '1'] = process.argv.slice(2);
  console.log(JSON.stringify({ sent: flood(`/run/netns/${namespace}`, device, to, from, Number(seconds)) }));
}
