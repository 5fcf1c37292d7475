/**
 * What must be there before the daemon touches anything, each with its fix: said in one line
 * instead of as the error of some call deep inside.
 */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { ConfigError } from './config.ts';

export type Plane = 'ebpf' | 'pcap';

/** Oldest kernel: bpf_loop and per-message marks as the classifier and the sender use them; for pcap, one that is still maintained. */
const KERNEL_MIN: Readonly<Record<Plane, readonly [number, number]>> = { ebpf: [6, 1], pcap: [5, 10] };

/**
 * What each capability is for; `any` of them is enough (CAP_SYS_ADMIN is the older, wider one).
 * A unit that does not run the daemon as root must grant exactly these.
 */
const NEEDED: readonly { readonly any: readonly number[]; readonly name: string; readonly what: string; readonly only?: Plane }[] = [
  { any: [12], name: 'CAP_NET_ADMIN', what: 'to attach to devices and make hold devices' },
  { any: [13], name: 'CAP_NET_RAW', what: 'to open packet sockets' },
  { any: [39, 21], name: 'CAP_BPF', what: 'to load kernel programs', only: 'ebpf' },
  { any: [38, 21], name: 'CAP_PERFMON', what: 'to load kernel programs that read frames', only: 'ebpf' },
];

/** Used where they are there: without them the API is not hurried, and the socket stays its maker's. */
export const WELCOME: readonly { readonly name: string; readonly what: string }[] = [
  { name: 'CAP_SYS_NICE', what: 'to go before the VMs\' load while a cut is answered (D22)' },
  { name: 'CAP_CHOWN', what: 'to give the socket to its group' },
];
/** What deploy/sluiced.service grants; a test compares. */
export const CAPABILITIES: readonly string[] = [...NEEDED, ...WELCOME].map(({ name }) => name);

export function checkKernel(plane: Plane, version = release()): void {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const least = KERNEL_MIN[plane];
  if (major > least[0] || (major === least[0] && minor >= least[1])) return;
  throw new ConfigError(`kernel ${version} is too old; Linux ${least.join('.')} or later is needed for plane: ${plane}`);
}

/** `status`: text of /proc/self/status. */
export function checkCapabilities(plane: Plane, status = readFileSync('/proc/self/status', 'utf8')): void {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const lacking = NEEDED.filter(({ any, only }) => (only === undefined || only === plane) && !any.some((bit) => ((effective >> BigInt(bit)) & 1n) === 1n));
  const [first] = lacking;
  if (first === undefined) return;
  throw new ConfigError(`sluiced lacks ${lacking.map(({ name }) => name).join(', ')} (${first.what}); run it as root, or grant them in its unit`);
}
