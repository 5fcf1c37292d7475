/**
 * The webhook: an event as the body of a POST.
 *
 *     try ─┬─ 2xx ─────────────────────────────────────────────► done
 *          ├─ 3xx, 4xx (but 408, 425, 429) ────────────────────► failed: the same again is refused again
 *          └─ 5xx, 408, 425, 429, no connection, timeoutMs ────► after a pause, TRIES times in all ─► failed
 *
 * A redirect is never followed: an address that the operator did not write gets no event. An
 * answer's body is read to ANSWER_BYTES_MAX and thrown away.
 *
 * With a secret each try is signed: `sluice-signature: t=SECONDS,v1=HEX`, HEX being the HMAC-SHA256
 * of `SECONDS.BODY` under the secret, which itself never travels. Who checks t within some minutes and
 * `sluice-event-id` for repeats takes no recorded post twice.
 */
import { createHmac } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Agent, request } from '../doors/client.ts';
import type { Deliver, Waiting } from './queue.ts';

const TRIES = 4;
/** Before the second, third and fourth try. */
const PAUSES_MS = [500, 2000, 5000];
const ANSWER_BYTES_MAX = 16 * 1024;
const AGAIN: ReadonlySet<number> = new Set([408, 425, 429]);

export interface PostOptions {
  readonly secret: string | undefined;
  readonly ca: string | undefined;
  readonly timeoutMs: number;
  readonly pausesMs?: readonly number[];
}

interface Tried {
  readonly why: string | undefined;
  readonly again: boolean;
}

export function webhook(url: string, options: PostOptions): Deliver {
  const { secret, ca, timeoutMs, pausesMs = PAUSES_MS } = options;
  const agent = new Agent({ connections: 1, ...(ca === undefined ? {} : { connect: { ca } }) });
  return async (one) => {
    let last: Tried = { why: undefined, again: true };
    for (let i = 0; i < TRIES && last.again; i++) {
      if (i > 0) await pause(pausesMs[i - 1] ?? 0);
      last = await tryOnce(agent, url, one, secret, timeoutMs);
    }
    return last.why;
  };
}

async function tryOnce(agent: Agent, url: string, one: Waiting, secret: string | undefined, timeoutMs: number): Promise<Tried> {
  const seconds = Math.floor(Date.now() / 1000);
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const { statusCode, body } = await request(url, {
      method: 'POST', dispatcher: agent, body: one.text, signal,
      headers: {
        'content-type': 'application/json', 'user-agent': 'sluiced', 'sluice-event': one.type, 'sluice-event-id': one.id,
        ...(secret === undefined ? {} : { 'sluice-signature': `t=${seconds},v1=${signatureOf(secret, seconds, one.text)}` }),
      },
    });
    await body.dump({ limit: ANSWER_BYTES_MAX, signal }).catch(() => undefined); // the status is what counts
    return judged(statusCode);
  } catch (error) {
    return { why: signal.aborted ? `no answer within ${timeoutMs} ms` : reasonOf(error), again: true };
  }
}

function judged(status: number): Tried {
  if (status >= 200 && status < 300) return { why: undefined, again: false };
  if (status >= 300 && status < 400) return { why: `answered ${status}; redirects are not followed`, again: false };
  return { why: `answered ${status}`, again: status >= 500 || AGAIN.has(status) };
}

/** The code alone: the sentence may hold the address. */
const reasonOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : 'the post failed');

export const signatureOf = (secret: string, seconds: number, body: string): string =>
  createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex');
