/** flock(2): Node has no call for it. The lock lives with the open file, so it ends with the process. */
import koffi from 'koffi';

const LOCK_EX_NB = 2 | 4;

const libc = koffi.load('libc.so.6');
const flock = libc.func('int flock(int fd, int operation)');

/** True if nobody else holds it. */
export function lockExclusively(fd: number): boolean {
  const result: unknown = flock(fd, LOCK_EX_NB);
  return result === 0;
}
