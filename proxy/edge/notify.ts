/**
 * What a service manager is told: ready, stopping, still alive (sd_notify(3)). One datagram each to
 * $NOTIFY_SOCKET; without one, nobody is told. Never waited for, and a failure is nobody's trouble:
 * the manager has its own time limits.
 */
import * as libc from './ffi/libc.ts';
import { connectUnix, send } from './ffi/sys.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;

export interface Manager {
  tell(state: string): void;
  /** How often it wants to hear WATCHDOG=1; undefined = it does not watch. */
  readonly watchdogMs: number | undefined;
}

export function serviceManager(env: Readonly<Record<string, string | undefined>>): Manager {
  const { NOTIFY_SOCKET: path, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
  const watched = path !== undefined && usec !== undefined && (pid === undefined || Number(pid) === process.pid) && Number(usec) > 0;
  return {
    tell: (state) => {
      if (path !== undefined) notify(path, state);
    },
    watchdogMs: watched ? Number(usec) / 1000 : undefined,
  };
}

function notify(path: string, state: string): void {
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  try {
    const text = Buffer.from(state);
    if (connectUnix(fd, path)) send(fd, text, text.length, libc.MSG_DONTWAIT);
  } finally {
    libc.close(fd);
  }
}
