/**
 * The bridges this daemon was given by `sluice attach`: a directory with a file for each, named as the
 * bridge. None = every bridge of this network namespace.
 *
 *     attach br0 ─► DIR/br0 ─┬─► a port in another bridge is refused (protect, join, takeover)
 *     detach br0 ─► gone     └─► readyz names br0 while there is no such bridge
 *
 * Read where it is asked, so that neither a reload nor a running daemon is needed for a change. What
 * is protected already stays so wherever its port is: a directory never ends protection (I8).
 */
import { readdirSync } from 'node:fs';
import { EdgeError } from './ports.ts';
import { checkDirectory, codeOf } from './trust.ts';

const NAME = /^(?!\.{1,2}$)[^\s/:]{1,15}$/;

export interface Bridges {
  /** May a port of this bridge become a member's? */
  has(bridge: string): boolean;
  /** Attached and not among `there`, a sentence each. */
  missing(there: ReadonlySet<string>): readonly string[];
}

export function bridgesOf(directory: string): Bridges {
  checkDirectory('bridges', directory);
  return {
    has: (bridge) => {
      const names = attached(directory);
      return names.length === 0 || names.includes(bridge);
    },
    missing: (there) => attached(directory).filter((name) => !there.has(name)).map((name) => `bridge ${name} is attached and not there`),
  };
}

function attached(directory: string): readonly string[] {
  try {
    return readdirSync(directory).filter((name) => NAME.test(name));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw new EdgeError('plane_down', `bridges ${directory} can't be read (${codeOf(error)})`, 'make it a directory that root can read, or remove it');
  }
}
