/** The daemon's log: pino to standard output, one JSON object a line, or pretty for a person. */
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { ConfigError } from './config.ts';
import { pino } from './doors/log.ts';
import type { Config } from './config.ts';
import { checkDirectory, codeOf } from './trust.ts';

/** Waiting for a reader of our output that has stopped: later lines are dropped. */
const UNREAD_BYTES_MAX = 8 * 1024 * 1024;

export interface Log {
  readonly logger: Logger;
  /** Commands and who gave them, beside the log's level: a line `audit: true` of the log, or a file of its own. */
  readonly audit: (entry: object) => void;
  /** The audit file was moved away (logrotate): go on in a new one. */
  reopen(): void;
  /** Writes what is still buffered; for the last lines of the process. */
  flush(): void;
}

export async function openLog(config: Config): Promise<Log> {
  const options = { level: config.log.level, base: { host: config.host }, timestamp: pino.stdTimeFunctions.isoTime };
  if (config.log.format === 'pretty') {
    const { default: pretty } = await import('pino-pretty'); // for a person; a service does without
    const stream = pretty({ destination: 1, sync: true, ignore: 'pid,hostname,host' });
    const logger = pino(options, stream);
    return { ...openAudit(config, logger), logger, flush: () => undefined };
  }
  // Not synchronous: a reader of our output that stops must not stop the API.
  const destination = pino.destination({ dest: 1, sync: false, minLength: 0, maxLength: UNREAD_BYTES_MAX });
  const logger = pino(options, destination);
  return {
    ...openAudit(config, logger),
    logger,
    flush: () => {
      try {
        destination.flushSync();
      } catch {
        // The output is gone, or was never ready: there is nobody left to tell.
      }
    },
  };
}

/** A file is written at once, a line a write, so that nothing of it is lost with the process. */
function openAudit(config: Config, logger: Logger): Pick<Log, 'audit' | 'reopen'> {
  if (config.audit === undefined) {
    const child = logger.child({ audit: true }, { level: 'info' });
    return { audit: (entry) => child.info(entry, 'command'), reopen: () => undefined };
  }
  const destination = auditFile(config.audit);
  destination.on('error', (error: Error) => logger.error({ err: error }, 'the audit log can\'t be written'));
  const lines = pino({ level: 'info', base: { host: config.host }, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return { audit: (entry) => lines.info(entry, 'command'), reopen: () => destination.reopen() };
}

function auditFile(file: string): ReturnType<typeof pino.destination> {
  checkDirectory('audit.file', dirname(file));
  try {
    return pino.destination({ dest: file, sync: true, mode: 0o640, append: true, maxLength: UNREAD_BYTES_MAX });
  } catch (error) {
    throw new ConfigError(`audit.file ${file} can't be written (${codeOf(error)}); give a path in a directory that exists`);
  }
}
