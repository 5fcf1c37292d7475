/**
 * Moves this process's main thread into a network namespace of its own, which goes with the
 * process: whatever a test makes in it needs no clearing away. Children inherit it.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, rmdirSync } from 'node:fs';
import koffi from 'koffi';
import { leaves, settled } from '../../bench/bed/abandon.ts';

const CLONE_NEWNET = 0x40000000;
const lib = koffi.load('libc.so.6');
const unshare: (flags: number) => number = lib.func('unshare', 'int', ['int']);

export function enterOwnNamespace(): void {
  if (unshare(CLONE_NEWNET) !== 0) throw new Error(`unshare: errno ${koffi.errno()}`);
  ip('link set lo up');
}
export const ip = (line: string): string => execFileSync('ip', line.split(' '), { encoding: 'utf8' });

export const HERE = '/proc/self/ns/net';

/** A pin directory of this process's own; `remove` takes it away with all that is in it, a signal to the test runner too. */
export function ownPins(name: string): { readonly dir: string; readonly remove: () => void } {
  const id = `${process.pid}-${name}`;
  const dir = `/sys/fs/bpf/sl-${id}`;
  const leaving = { id, namespaces: [], directory: dir, pins: [] };
  leaves(leaving);
  return {
    dir,
    remove: () => {
      mkdirSync(dir, { recursive: true });
      for (const pin of readdirSync(dir)) rmSync(`${dir}/${pin}`);
      rmdirSync(dir);
      settled(leaving);
    },
  };
}
