/**
 * What the daemon may believe on disk: a file that another user can read is no secret, and a
 * directory that another user can write is no journal.
 *
 *     secret      regular, of root or ours, nothing for others, not writable by the group
 *     directory   of root or ours, not writable by others unless sticky; and so the one it is in
 *
 * A symbolic link is followed, and what it leads to is looked at. Checked on the open file where it
 * is read, so that it can't be exchanged between the look and the reading. Each refusal is one line
 * with its fix.
 */
import { closeSync, fstatSync, openSync, readFileSync, realpathSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError } from './config.ts';

const OTHERS = 0o007;
const OTHERS_WRITE = 0o002;
const GROUP_WRITE = 0o020;
const STICKY = 0o1000;

export const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : String(error));
const isOurs = ({ uid }: Stats): boolean => uid === 0 || uid === process.geteuid?.();

/** `key`: of the settings, for the message. */
export function readSecret(key: string, file: string): string {
  return readChecked(key, file, (stats) => {
    if (!stats.isFile()) throw new ConfigError(`${key} ${file} is not a regular file; give the path of one`);
    if ((stats.mode & OTHERS) !== 0) throw new ConfigError(`${key} ${file} can be read by everyone; chmod 600 ${file}`);
    if ((stats.mode & GROUP_WRITE) !== 0) throw new ConfigError(`${key} ${file} can be written by its group; chmod 640 ${file}`);
    if (!isOurs(stats)) throw new ConfigError(`${key} ${file} belongs to another user (uid ${stats.uid}); chown root ${file}`);
  });
}

/** A program that the daemon runs with its own rights. */
export function checkProgram(key: string, file: string): void {
  checkDirectory(key, dirname(file));
  const around = statSync(dirname(file), { throwIfNoEntry: false });
  if (around !== undefined && (around.mode & GROUP_WRITE) !== 0 && around.gid !== 0) {
    throw new ConfigError(`${key} ${file} runs with the daemon's rights and a group (gid ${around.gid}) may exchange it; chmod g-w ${dirname(file)}`);
  }
  readChecked(key, file, (stats) => {
    if (!stats.isFile() || (stats.mode & 0o111) === 0) throw new ConfigError(`${key} ${file} is no program; give the path of one, and chmod 755 it`);
    if ((stats.mode & (OTHERS_WRITE | GROUP_WRITE)) !== 0) throw new ConfigError(`${key} ${file} runs with the daemon's rights and can be written by others; chmod 755 ${file}`);
    if (!isOurs(stats)) throw new ConfigError(`${key} ${file} runs with the daemon's rights and belongs to another user (uid ${stats.uid}); chown root ${file}`);
  });
}

export const readPublic = (key: string, file: string): string => readChecked(key, file, () => undefined);

function readChecked(key: string, file: string, check: (stats: Stats) => void): string {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (error) {
    throw new ConfigError(`${key} ${file} can't be read (${codeOf(error)}); give the path of a file that is there`);
  }
  try {
    check(fstatSync(fd));
    return readFileSync(fd, 'utf8');
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${key} ${file} can't be read (${codeOf(error)}); give the path of a file`);
  } finally {
    closeSync(fd);
  }
}

/** A directory that is not there yet will be made, in its parent: that one must be as good. */
export function checkDirectory(key: string, path: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  const parent = dirname(path);
  if (found === undefined) return parent === path ? undefined : checkDirectory(key, parent);
  if (!found.isDirectory()) throw new ConfigError(`${key} ${path} is not a directory; give the path of one`);
  const real = realpathSync(path);
  mayNotBeExchanged(key, real, found);
  if (dirname(real) !== real) mayNotBeExchanged(key, dirname(real), statSync(dirname(real)));
}

function mayNotBeExchanged(key: string, path: string, stats: Stats): void {
  if (!isOurs(stats)) throw new ConfigError(`${key}: ${path} belongs to another user (uid ${stats.uid}), who could exchange what is in it; chown root ${path}, or give a path elsewhere`);
  if ((stats.mode & OTHERS_WRITE) !== 0 && (stats.mode & STICKY) === 0) throw new ConfigError(`${key}: everyone may write ${path}; chmod o-w ${path}`);
}

/** The state directory itself, where it is there: nobody else's files in it, sticky or not. */
export function checkState(key: string, path: string): void {
  checkDirectory(key, path);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if ((found.mode & OTHERS_WRITE) !== 0) throw new ConfigError(`${key}: everyone may write ${path}, so its journal can't be believed; chmod 700 ${path}`);
  if (!isOurs(found)) throw new ConfigError(`${key} ${path} belongs to another user (uid ${found.uid}), so its journal can't be believed; chown root ${path}`);
}
