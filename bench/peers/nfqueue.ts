/**
 * Holding with NFQUEUE, as one would with iptables on a bridge: br_netfilter shows bridged IPv4 to
 * the FORWARD chain, a rule queues what member 0 sends to the uplink, nfqueue-hold.c keeps the
 * account and gives batch verdicts.
 *
 *   port1 ─► bridge ─► FORWARD: NFQUEUE 0 ══ frames wait in the kernel ══► verdict ─► uplink
 *                                  └─ numbers ─► nfqueue-hold ◄─ cut, commit (lines)
 *
 * Not held: whatever is not IPv4 (ARP, IPv6 and every other ethertype leave at once). Frames to
 * members match no rule and pass.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Bed } from '../bed/bed.ts';
import { namespacePath, run, runIn } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import { inNamespace } from '../bed/libc.ts';
import { Unavailable } from '../scenario.ts';
import { cache, keep } from '../vm/kernel.ts';
import type { Hold } from './hold.ts';
import { LineProgram } from './lines.ts';

const IPTABLES = '/usr/sbin/iptables-legacy';

/** @throws Unavailable without iptables; an error where the kernel can't. */
export async function nfqueueHold(bed: Bed): Promise<Hold> {
  if (!existsSync(IPTABLES)) throw new Unavailable(`${IPTABLES} is missing (package iptables): deploy/setup.sh vm`);
  const holder = new LineProgram(bed.host, await holderProgram(), ['0']);
  const lastOf = new Map<number, string>();
  let open = 1;
  const hold: Hold = {
    cut: async () => {
      const [, last] = /^cut (\d+)$/.exec(await holder.ask('cut')) ?? [];
      if (last === undefined) throw new Error('nfqueue-hold does not understand cut');
      lastOf.set(open++, last);
    },
    commit: async (epoch) => {
      const last = lastOf.get(epoch);
      lastOf.delete(epoch);
      if (last !== undefined && last !== '0') await holder.ask(`commit ${last}`);
    },
    close: () => holder.close(),
  };
  try {
    await holder.ask('cut'); // it has bound its queue: a rule without a listener drops
    inNamespace(namespacePath(bed.host), () => writeFileSync('/proc/sys/net/bridge/bridge-nf-call-iptables', '1'));
    await runIn(bed.host, IPTABLES, rule(bed));
    return hold;
  } catch (error) {
    await holder.close();
    throw error;
  }
}

const rule = (bed: Bed): string[] => [
  '-A', 'FORWARD', '-m', 'physdev', '--physdev-is-bridged', '--physdev-in', bed.member(0).port, '--physdev-out', bed.outsider.port,
  '-j', 'NFQUEUE', '--queue-num', '0',
];

/** Compiled once for each state of its source, beside the guest kernels. */
export async function holderProgram(): Promise<string> {
  const source = join(repositoryRoot(), 'bench/peers/nfqueue-hold.c');
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const place = join(cache(), `nfqueue-hold-${hash}`);
  if (existsSync(place)) return place;
  mkdirSync(cache(), { recursive: true });
  const made = `${place}.${process.pid}`;
  await run('cc', ['-O2', '-Wall', '-Werror', '-o', made, source]);
  return keep(made, place);
}
