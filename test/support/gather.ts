/**
 * Listens for frames without trusting the machine's pace: `least` are waited for as long as it takes
 * (20 s at most: then the test's own comparison says what is missing), and after them for as long as
 * something still comes, so that one too many is seen.
 */
import { sleep } from '../../bench/bed/commands.ts';

const WAIT_MS_MAX = 20_000;
const QUIET_MS = 120;

/** `read` takes what is there and answers with how many there were. */
export async function gather(read: () => number, least: number): Promise<void> {
  const deadline = performance.now() + WAIT_MS_MAX;
  let came = 0;
  for (let quietSince = performance.now(); ; await sleep(5)) {
    const now = performance.now();
    const more = read();
    came += more;
    if (more > 0 || came < least) quietSince = now;
    if (now - quietSince > QUIET_MS || now > deadline) return;
  }
}
