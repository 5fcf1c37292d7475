/**
 * sluiced, the program: arguments in, a daemon that runs until a signal or a fault ends it.
 *
 *     start fails ──────────► one line on standard error, exit 1
 *     SIGTERM, SIGINT ──────► everyone answered, exit 0     (protection stays in the kernel, D12)
 *     SIGHUP ───────────────► tokens and certificates read again, audit file opened anew
 *     hold loop dead, fault ► fatal in the log, exit 1      (the kernel holds, frames drop: I8)
 *     uncaught exception ───► the same, and not one command more is served
 */
import { readFileSync } from 'node:fs';
import { ConfigError, helpText, readConfig } from './config.ts';
import { startDaemon } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { serviceManager } from './edge/notify.ts';
import type { Manager } from './edge/notify.ts';
import { packageFile } from './gate.ts';
import { openLog } from './logging.ts';
import type { Log } from './logging.ts';

/** Time for answers to reach their sockets before a faulty process ends. */
const LAST_WORDS_MS = 100;
/** Signs of life in the time after which the service manager takes us for hung. */
const WATCHDOG_SHARE = 3;

function version(): string {
  const parsed: unknown = JSON.parse(readFileSync(packageFile('package.json'), 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown';
}

/** An operating error is its sentence and its fix; anything else is a fault, and keeps its stack. */
function lineOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ('fix' in error && typeof error.fix === 'string') return `${error.message}; ${error.fix}`;
  if (error instanceof ConfigError) return error.message;
  if (error.name === 'SystemError') return `${error.message}; sluice doctor looks for the cause`;
  return `internal error: ${error.stack ?? error.message}`;
}

function endBySignal(daemon: Daemon, log: Log, manager: Manager): void {
  let ending = false;
  const end = (signal: NodeJS.Signals): void => {
    if (ending) return; // a second signal changes nothing: every wait of `stop` is bounded
    ending = true;
    log.logger.info({ signal }, 'ending');
    manager.tell('STOPPING=1');
    daemon.stop().then(
      () => leave(0),
      (error: unknown) => {
        log.logger.fatal({ err: error }, 'could not end in order');
        leave(1);
      },
    );
  };
  const leave = (code: number): void => {
    log.flush();
    process.exit(code);
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
}

/** SIGHUP: tokens, certificates and a rotated audit file; nothing else changes without a restart. */
function reloadBySignal(daemon: Daemon, log: Log): void {
  process.on('SIGHUP', () => {
    try {
      log.reopen();
    } catch (error) {
      log.logger.error(`the audit file can't be opened anew: ${lineOf(error)}; lines go on into the old one`);
    }
    try {
      daemon.reload();
      log.logger.info('tokens and certificates were read again');
    } catch (error) {
      log.logger.error(`${lineOf(error)}; the old ones stay in use`);
    }
  });
}

async function main(): Promise<void> {
  const request = readConfig(process.argv.slice(2), process.env);
  if (request.kind === 'help') return void process.stdout.write(helpText());
  if (request.kind === 'version') return void process.stdout.write(`sluiced ${version()}\n`);
  const log = await openLog(request.config);
  const end = (): void => {
    log.flush();
    process.exit(1);
  };
  const say = (error: unknown): void => log.logger.fatal({ err: error }, 'sluiced ends; protection stays in the kernel, held frames are lost');
  /** Control takes nothing any more and has answered everyone. */
  const fatal = (error: unknown): void => {
    say(error);
    setTimeout(end, LAST_WORDS_MS);
  };
  process.on('uncaughtException', (error) => {
    say(error);
    end();
  });
  const daemon = await startDaemon(request.config, log, version(), fatal);
  const manager = serviceManager(process.env);
  endBySignal(daemon, log, manager);
  reloadBySignal(daemon, log);
  manager.tell('READY=1');
  if (manager.watchdogMs !== undefined) setInterval(() => manager.tell('WATCHDOG=1'), manager.watchdogMs / WATCHDOG_SHARE);
}

main().catch((error: unknown) => {
  process.stderr.write(`sluiced: ${lineOf(error)}\n`);
  process.exit(1);
});
