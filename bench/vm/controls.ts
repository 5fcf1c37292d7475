/**
 * Negative controls: failovers done wrong on purpose. Each must hang or break the client within a
 * short deadline, or the tests that say "the count goes on" would prove nothing. `right` is the
 * same procedure done right, by the same hands: it must go on.
 *
 *   checkpoint A ─ the client counts ─ checkpoint B ─ the client waits for what is held ─ SIGKILL
 *
 *   right    both from B                             unheld   both from A, nothing was held
 *   epochs   front from B, store from A              one      front from B, store was not killed
 *   stale    somebody else has taken over; the old generation's takeover and commit are refused, and
 *            what it starts all the same reaches nobody
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Refused } from '../../checkpoint-hooks/client.ts';
import { VmBed } from './bed.ts';
import { CountingClient } from './client.ts';
import type { ClientAccount } from './client-account.ts';
import { Hand, type Checkpoint } from './hand.ts';

export const CONTROLS = ['right', 'unheld', 'epochs', 'one', 'stale'] as const;
export type Control = (typeof CONTROLS)[number];

export interface ControlRun {
  readonly control: Control;
  /** Answers that the client got after the failover, within the deadline. */
  readonly answersAfter: number;
  readonly account: ClientAccount;
  /** Codes of the commands that were refused. */
  readonly refused: readonly string[];
}

const DEADLINE_MS = 3000;
const COMMIT_EVERY_MS = 20;
/** A client that is behind by more than this is taken for one that has read all. */
const STILL_MS = 700;
const WARM_ANSWERS = 20;
const COUNTS_MS = 10_000;

export async function control(which: Control): Promise<ControlRun> {
  const bed = await VmBed.create({ guests: 2 });
  try {
    await bed.startGuests();
    await bed.bed.daemon().start('live');
    const hand = bed.own(await Hand.attach(bed));
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    bed.own({ close: () => client.end() });
    await client.counts(WARM_ANSWERS, COUNTS_MS);
    return await play(which, bed, hand, client);
  } finally {
    await bed.close();
  }
}

async function play(which: Control, bed: VmBed, hand: Hand, client: CountingClient): Promise<ControlRun> {
  const died = which === 'one' ? ['front'] : ['front', 'store'];
  if (which !== 'unheld') await hand.protect();
  await hand.start(died);
  const a = await hand.checkpoint();
  await goOn(hand, client, WARM_ANSWERS);
  const b = await hand.checkpoint();
  if (which === 'unheld') await client.counts(WARM_ANSWERS, COUNTS_MS);
  else await sleep(COMMIT_EVERY_MS * 3); // time for the next request, whose answer is held
  bed.kill(died, 0);
  const refused: string[] = [];
  if (which === 'stale') refused.push(...(await stale(bed, hand, b.epoch)));
  else if (which !== 'unheld') await hand.takeOver(b.epoch, died);
  const before = await allRead(client);
  await hand.restore(imagesOf(which, a, b));
  await watch(which, hand, client);
  const answersAfter = (client.where()?.answers ?? 0) - before;
  return { control: which, answersAfter, account: await client.stop(), refused };
}

function imagesOf(which: Control, a: Checkpoint, b: Checkpoint): Checkpoint['images'] {
  if (which === 'unheld') return a.images;
  return which === 'epochs' ? new Map([...b.images, ...[...a.images].filter(([name]) => name === 'store')]) : b.images;
}

/** The client counts under protection: what it waits for is committed again and again. */
async function goOn(hand: Hand, client: CountingClient, answers: number): Promise<void> {
  const counted = client.counts(answers, COUNTS_MS);
  let done = false;
  const watched = counted.finally(() => (done = true));
  while (!done) {
    if (hand.open > 0) await hand.cutAndCommit();
    await sleep(COMMIT_EVERY_MS);
  }
  await watched;
}

/** Answers that the client has, once it has read what the takeover let out: nobody is there who would send another. */
async function allRead(client: CountingClient): Promise<number> {
  for (let answers = -1; ;) {
    const now = client.where()?.answers ?? 0;
    if (now === answers) return now;
    answers = now;
    await sleep(STILL_MS);
  }
}

/** Until the client goes on, or the deadline. */
async function watch(which: Control, hand: Hand, client: CountingClient): Promise<void> {
  const from = client.where()?.answers ?? 0;
  const deadline = Date.now() + DEADLINE_MS;
  while (Date.now() < deadline && (client.where()?.answers ?? 0) < from + WARM_ANSWERS) {
    if (hand.open > 0 && which !== 'stale') await hand.cutAndCommit();
    await sleep(COMMIT_EVERY_MS);
  }
}

/** Another engine takes over; then the codes that the fenced one's commands are refused with. */
async function stale(bed: VmBed, { client, generation, open }: Hand, epoch: number): Promise<string[]> {
  const { group } = bed.group;
  await client.takeover(group, { generation: generation + 1, epoch });
  const commands = [() => client.takeover(group, { generation, epoch }), () => client.commit(group, { generation, epoch: open })];
  const codes: string[] = [];
  for (const command of commands) {
    codes.push(await command().then(() => 'accepted', (error: unknown) => {
      if (error instanceof Refused) return error.code;
      throw error;
    }));
  }
  return codes;
}

/** What a control did not show; undefined where it showed what it must. */
export function controlFault({ control: which, answersAfter, account, refused }: ControlRun): string | undefined {
  const goesOn = answersAfter > 0 && account.wrong.length === 0 && account.broken === undefined;
  if (which === 'right') return goesOn ? undefined : 'done right, the client did not go on';
  if (which === 'stale' && refused.join() !== 'fenced,fenced') return `the old generation was answered ${refused.join(', ')}`;
  return goesOn ? 'the client went on as if nothing had been wrong' : undefined;
}
