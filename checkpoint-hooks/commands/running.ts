/** What commands share that run until they are told to stop: signals, the state line, durations. */
import { InvalidArgumentError } from 'commander';
import type { LatencySummary } from '../engines/latency.ts';
import { msText } from '../format.ts';
import { EXIT, duration } from './context.ts';

const STATE_LINE_MS = 500;

export interface StateLine {
  readonly first: string;
  /** On a terminal only, wanted or not. */
  readonly isShown: boolean;
  readonly text: () => string;
}

/** SIGINT and SIGTERM end the work in good order; a second one ends the process. */
export async function untilSignal<T>(line: StateLine, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(EXIT.failed);
    stop.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const done = await stateOnTerminal(line);
  try {
    return await work(stop.signal);
  } finally {
    done();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** Loaded here, since few commands need it. */
async function stateOnTerminal({ first, isShown, text }: StateLine): Promise<() => void> {
  if (!isShown || !process.stderr.isTTY) return () => undefined;
  const { default: ora } = await import('ora');
  const spinner = ora({ stream: process.stderr, discardStdin: false }).start(first);
  const timer = setInterval(() => (spinner.text = text()), STATE_LINE_MS);
  return () => {
    clearInterval(timer);
    spinner.stop();
  };
}

export function positive(text: string): number {
  const ms = duration(text);
  if (ms <= 0) throw new InvalidArgumentError('expected more than 0');
  return ms;
}

export const latencyText = ({ p50, p99, max }: LatencySummary): string => `p50 ${msText(p50)}, p99 ${msText(p99)}, max ${msText(max)}`;
