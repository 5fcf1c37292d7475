/** The data planes that pass the same contract tests. */
import type { Plane } from '../../bench/bed/bed.ts';

export const PLANES: readonly Plane[] = ['ebpf', 'pcap'];
