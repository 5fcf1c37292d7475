/**
 * Memory that two processes share and that outlives both: a file on a memory file system, mapped.
 *
 *   daemon ── store ──► │ page │ page │ … ◄── load ── child        one aligned word is never torn
 *
 * What is in the file when it is opened is what was left there. It is never unmapped: the views
 * live as long as the process. Removing the file takes it from later openers only.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { MAP_SHARED, mustMap, view } from './ffi/libc.ts';

/**
 * One buffer a part, `parts` bytes each (multiples of 8), one after the other in the file, which is
 * grown or cut to fit. Throws where there is no room or no right.
 */
export function shareMemory(path: string, parts: readonly number[]): ArrayBuffer[] {
  const bytes = parts.reduce((sum, part) => sum + part, 0);
  const fd = openSync(path, 'a+', 0o600); // made if it is missing
  try {
    if (fstatSync(fd).size !== bytes) ftruncateSync(fd, bytes);
    let at = mustMap(0, bytes, MAP_SHARED, fd, path);
    return parts.map((part) => {
      at += part;
      return view(at - part, part);
    });
  } finally {
    closeSync(fd);
  }
}

export const unshareMemory = (path: string): void => rmSync(path, { force: true });
