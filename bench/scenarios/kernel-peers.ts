/** The kernel's own ways to hold, here where this kernel has them, else in the lab guest. */
import { existsSync } from 'node:fs';
import { NFQUEUE_CARRIES, NFQUEUE_EXACT, PLUG_CARRIES, PLUG_EXACT } from '../peers/inner.ts';
import { hasQdisc, whereItCan } from '../peers/lab/where.ts';
import type { Scenario } from '../scenario.ts';

const hasQueue = (): boolean => existsSync('/proc/net/netfilter/nfnetlink_queue') && existsSync('/proc/sys/net/bridge');
const hasPlug = (): boolean => hasQdisc('plug');

export const kernelPeers: readonly Scenario[] = [
  { ...whereItCan(NFQUEUE_CARRIES, hasQueue), lapsMax: 2 }, { ...whereItCan(NFQUEUE_EXACT, hasQueue), lapsMax: 2 },
  { ...whereItCan(PLUG_CARRIES, hasPlug), lapsMax: 1 }, { ...whereItCan(PLUG_EXACT, hasPlug), lapsMax: 1 },
];
