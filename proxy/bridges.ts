/**
 * The bridges this daemon was given by `sluice attach`: a directory with a file for each, named as the
 * bridge. None = every bridge of this network namespace.
 *
 *     attach br0 ─► DIR/br0 ─┬─► a port in another bridge is refused (protect, join, takeover)
 *     detach br0 ─► gone     └─► readyz names br0 while there is no such bridge
 *
 * Read where it is asked, so that neither a reload nor a running daemon is needed for a change. What
 * is protected already stays so wherever its port is: a directory never ends protection (I8). Only files
 * count, and no hidden ones or editors' copies (`br0~`), which no attachment can be called. Any other
 * file is an attachment, whoever wrote it: one too many refuses a port and is named by readyz, one too
 * few would allow one.
 */
import { readdirSync } from 'node:fs';
import { EdgeError } from './ports.ts';
import { checkDirectory, codeOf } from './trust.ts';

const NAME = /^(?!\.)[^\s/:]{0,14}[^\s/:~]$/;

export interface Bridges {
  /** May a port of this bridge become a member's? */
  has(bridge: string): boolean;
  /** Attached and not among `there`, a sentence each; or why that can't be said. */
  missing(there: ReadonlySet<string>): readonly string[];
}

export function bridgesOf(directory: string): Bridges {
  checkDirectory('bridges', directory);
  return {
    has: (bridge) => {
      const names = attached(directory);
      return names.length === 0 || names.includes(bridge);
    },
    missing: (there) => missing(directory, there),
  };
}

function missing(directory: string, there: ReadonlySet<string>): readonly string[] {
  try {
    return attached(directory).filter((name) => !there.has(name)).map((name) => `bridge ${name} is attached and not there`);
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

function attached(directory: string): readonly string[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).filter((entry) => !entry.isDirectory() && NAME.test(entry.name)).map(({ name }) => name);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw new EdgeError('plane_down', `bridges ${directory} can't be read (${codeOf(error)})`, 'make it a directory that root can read, or remove it');
  }
}
