/** `sluice engine …`: checkpoint engines that come with Sluice. */
import { Option } from 'commander';
import type { Command } from 'commander';
import { Ticker } from '../engines/ticker.ts';
import type { TickerSummary } from '../engines/ticker.ts';
import { pairs } from '../format.ts';
import { duration, wholeNumber } from './context.ts';
import type { Context } from './context.ts';
import { addQemu } from './engine-qemu.ts';
import { latencyText, positive, untilSignal } from './running.ts';

const INTERVAL_DEFAULT_MS = 25;

interface TickerFlags {
  readonly interval?: number;
  readonly commitDelay: number;
  readonly onOutput?: boolean;
  readonly epochs?: number;
  readonly dropAcks: number;
  readonly follow?: boolean;
  readonly giveUpAfter: number;
}

export function stateLine(now: TickerSummary): string {
  return `${now.group} generation ${now.generation}  open ${now.open}  committed ${now.committed}  released ${now.released}  in flight ${now.inFlight}  held ${now.heldFrames}`;
}

export function summaryText(summary: TickerSummary): string {
  return pairs([
    ['epochs', `${summary.epochs} cut, ${summary.commits} commits (open ${summary.open}, committed ${summary.committed}, released ${summary.released})`],
    ['cut', latencyText(summary.cutMs)],
    ['commit', latencyText(summary.commitMs)],
    ['lost beats', `${summary.missedBeats} missed, ${summary.skipped} skipped`],
    ['acks left out', String(summary.droppedAcks)],
    ['resyncs', String(summary.resyncs)],
  ]);
}

async function tick(context: Context, group: string, flags: TickerFlags, command: Command): Promise<void> {
  const ticker = new Ticker(context.client(command), {
    group,
    intervalMs: flags.interval ?? (flags.onOutput === true ? undefined : INTERVAL_DEFAULT_MS),
    commitDelayMs: flags.commitDelay,
    onOutput: flags.onOutput === true,
    epochs: flags.epochs,
    dropEvery: flags.dropAcks,
    follow: flags.follow === true,
    unreachableMaxMs: flags.giveUpAfter,
  });
  const first = `${group}: cutting`;
  const summary = await untilSignal({ first, isShown: !context.isJson(command), text: () => stateLine(ticker.summary()) }, (signal) => ticker.run(signal));
  context.show(command, summary, () => summaryText(summary));
}

export function addEngine(program: Command, context: Context): void {
  const engine = program.command('engine').description('checkpoint engines that come with Sluice');
  addQemu(engine, context);
  engine
    .command('ticker <group>')
    .description('cut and commit by the clock, without VMs; Ctrl-C commits what is in flight and ends')
    .option('--interval <duration>', `time between cuts (default: ${INTERVAL_DEFAULT_MS}ms; none with --on-output)`, positive)
    .addOption(new Option('--commit-delay <duration>', 'time from a cut to its commit (or acks)').argParser(duration).default(5, '5ms'))
    .option('--on-output', 'cut when the open epoch has output; --interval is then the longest epoch')
    .option('--epochs <count>', 'end after so many cuts', wholeNumber)
    .option('--drop-acks <n>', 'leave out every n-th ack or commit, as a lossy backup would; 0 = none', wholeNumber, 0)
    .option('--follow', 'go on in a new generation instead of ending when fenced')
    .addOption(new Option('--give-up-after <duration>', 'end when the daemon was silent for so long').argParser(duration).default(10_000, '10s'))
    .addHelpText('after', '\nExample:\n  $ sluice engine ticker web --interval 25ms --commit-delay 5ms --epochs 400')
    .action((group: string, flags: TickerFlags, command: Command) => tick(context, group, flags, command));
}
