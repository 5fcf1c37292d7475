/**
 * The lab guest's agent: runs scenarios where it is, as the bench's runner would, and says what
 * they read. One JSON line a question, on standard input; one an answer, on standard output.
 *
 *   {"scenario":NAME,"verb":"open"} · {"verb":"lap","lap":{…}} · {"verb":"close"}
 *
 * It holds one open scenario at a time. What a scenario says goes to standard error: the console.
 */
import { release } from 'node:os';
import { createInterface } from 'node:readline';
import { Unavailable, type Lap, type Stage } from '../../scenario.ts';
import { INNER } from '../inner.ts';
import type { LabAnswer } from './guest.ts';

interface Question {
  readonly verb: 'open' | 'lap' | 'close';
  readonly scenario?: string;
  readonly lap?: Lap;
}

let stage: Stage | undefined;

async function perform({ verb, scenario, lap }: Question): Promise<unknown> {
  if (verb === 'open') {
    const found = INNER.find(({ name }) => name === scenario);
    if (found === undefined || stage !== undefined) throw new Error(`can't open ${scenario}`);
    stage = await found.open({ say: (line) => console.error(line), raw: () => undefined });
    return release();
  }
  if (stage === undefined) throw new Error(`${verb} without an open scenario`);
  if (verb === 'lap' && lap !== undefined) return stage.lap(lap);
  await stage.close();
  stage = undefined;
  return null;
}

const say = (answer: LabAnswer): void => console.log(JSON.stringify(answer));

say({ ok: true, value: release() });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say({ ok: true, value: await perform(JSON.parse(line) as Question) });
  } catch (error) {
    const whole = error instanceof Error ? (error.stack ?? error.message) : String(error);
    console.error(whole);
    say({ ok: false, error: whole, unavailable: error instanceof Unavailable });
  }
}
