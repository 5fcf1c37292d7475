/**
 * A test guest as the engine is told of it: the exact command lines of its two sides, as values.
 *
 * Both sides are one machine (a restored image must fit) but for the paths, the tap and the second
 * QMP server, the `eye`: QEMU serves one client a server, the first is the engine's, the eye is
 * the test's, to see stops and starts with.
 *
 * The kernel is told what it can't measure under emulation (lpj, tsc); the guest's clock is the
 * host's time stamp counter, so its frequency is this machine's.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestSpec, GuestSide, SideIndex } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { namespacePath } from '../bed/commands.ts';
import type { Kit } from './kit.ts';

/** What `count` at port COUNT_PORT does: keep the number, or ask the guest at `next` for it. */
export type Role = { readonly kind: 'store' } | { readonly kind: 'relay'; readonly next: string };

export const COUNT_PORT = 7000;
export const LAB_PORT = 7001;

/** 64 MiB does not boot. */
export const RAM_BYTES = 72 << 20;

export interface GuestWish {
  readonly name: string;
  readonly mac: string;
  readonly ip: string;
  readonly role: Role;
  /** Namespace of bridge and taps; directory of sockets and logs; stem of the RAM files' names. */
  readonly namespace: string;
  readonly directory: string;
  readonly ram: string;
  /** A tap a side; they must exist. */
  readonly taps: readonly [string, string];
}

/** Paths of a side beside those the engine is told. */
export const consoleOf = (directory: string, name: string, side: SideIndex): string => join(directory, `${name}${side}.console`);
export const eyeOf = (directory: string, name: string, side: SideIndex): string => join(directory, `${name}${side}.eye`);

export function guestSpec(kit: Kit, wish: GuestWish): GuestSpec {
  return {
    name: wish.name, ramBytes: RAM_BYTES, nics: [{ mac: wish.mac, addresses: [wish.ip] }],
    sides: [guestSide(kit, wish, 0), guestSide(kit, wish, 1)],
  };
}

function guestSide(kit: Kit, wish: GuestWish, side: SideIndex): GuestSide {
  const at = (suffix: string): string => join(wish.directory, `${wish.name}${side}.${suffix}`);
  const ram = `${wish.ram}${side}`;
  const tap = wish.taps[side];
  const server = (path: string): string => `unix:${path},server=on,wait=off`;
  const argv = [
    'nsenter', `--net=${namespacePath(wish.namespace)}`, kit.qemu,
    '-name', `${wish.name}${side}`,
    '-M', 'microvm,memory-backend=ram', '-accel', 'tcg,thread=multi', '-m', `${RAM_BYTES >> 20}`, '-smp', '1',
    '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
    '-object', `memory-backend-file,id=ram,size=${RAM_BYTES},mem-path=${ram},share=on`,
    '-kernel', kit.kernel, '-initrd', kit.initramfs, '-append', kernelArguments(wish),
    '-netdev', `tap,id=nic,ifname=${tap},script=no,downscript=no`,
    '-device', `virtio-net-device,netdev=nic,mac=${wish.mac}`,
    '-serial', `file:${consoleOf(wish.directory, wish.name, side)}`,
    '-qmp', server(at('qmp')), '-qmp', server(eyeOf(wish.directory, wish.name, side)),
    '-pidfile', at('pid'),
  ];
  return { argv, qmp: at('qmp'), pidFile: at('pid'), ram, ports: [tap] };
}

function kernelArguments({ ip, role }: GuestWish): string {
  return [
    'console=ttyS0 quiet loglevel=1 panic=-1 ipv6.disable=1 nokaslr mitigations=off no_timer_check',
    `lpj=5000000 tsc_early_khz=${hostKhz()} tsc=reliable`,
    `sluice.ip=${ip} sluice.role=${role.kind}`,
    ...(role.kind === 'relay' ? [`sluice.next=${role.next}`] : []),
  ].join(' ');
}

/** Frequency of this machine's time stamp counter, as far as it says. */
export function hostKhz(): number {
  const mhz = Number(/cpu MHz\s*: ([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 2600);
  return Math.round(mhz * 1000);
}
