/** `sluice engine …`: checkpoint engines that come with Sluice. */
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { Ticker } from '../engines/ticker.ts';
import type { TickerSummary } from '../engines/ticker.ts';
import type { LatencySummary } from '../engines/latency.ts';
import { msText, pairs } from '../format.ts';
import { EXIT, duration, wholeNumber } from './context.ts';
import type { Context } from './context.ts';

const INTERVAL_DEFAULT_MS = 25;
const STATE_LINE_MS = 500;

interface TickerFlags {
  readonly interval?: number;
  readonly commitDelay: number;
  readonly onOutput?: boolean;
  readonly epochs?: number;
  readonly dropAcks: number;
  readonly follow?: boolean;
  readonly giveUpAfter: number;
}

function positive(text: string): number {
  const ms = duration(text);
  if (ms <= 0) throw new InvalidArgumentError('expected more than 0');
  return ms;
}

const latencyText = ({ p50, p99, max }: LatencySummary): string => `p50 ${msText(p50)}, p99 ${msText(p99)}, max ${msText(max)}`;

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

/** The state line on a terminal; elsewhere nothing. Loaded here, since few commands need it. */
async function stateOnTerminal(first: string, isWanted: boolean, text: () => string): Promise<() => void> {
  if (!isWanted) return () => undefined;
  const { default: ora } = await import('ora');
  const spinner = ora({ stream: process.stderr, discardStdin: false }).start(first);
  const timer = setInterval(() => (spinner.text = text()), STATE_LINE_MS);
  return () => {
    clearInterval(timer);
    spinner.stop();
  };
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
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(EXIT.failed);
    stop.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const done = await stateOnTerminal(`${group}: cutting`, process.stderr.isTTY && !context.isJson(command), () => stateLine(ticker.summary()));
  try {
    const summary = await ticker.run(stop.signal);
    done();
    context.show(command, summary, () => summaryText(summary));
  } finally {
    done();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

export function addEngine(program: Command, context: Context): void {
  program
    .command('engine')
    .description('checkpoint engines that come with Sluice')
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
