/** The daemon's log: pino to standard output, one JSON object a line, or pretty for a person. */
import pino from 'pino';
import type { Logger } from 'pino';
import pretty from 'pino-pretty';
import type { Config } from './config.ts';

export interface Log {
  readonly logger: Logger;
  /** Writes what is still buffered; for the last lines of the process. */
  flush(): void;
}

export function openLog(config: Config): Log {
  const options = { level: config.log.level, base: { host: config.host }, timestamp: pino.stdTimeFunctions.isoTime };
  if (config.log.format === 'pretty') {
    const stream = pretty({ destination: 1, sync: true, ignore: 'pid,hostname,host' });
    return { logger: pino(options, stream), flush: () => undefined };
  }
  // Not synchronous: a reader of our output that stops must not stop the API.
  const destination = pino.destination({ dest: 1, sync: false, minLength: 0 });
  return {
    logger: pino(options, destination),
    flush: () => {
      try {
        destination.flushSync();
      } catch {
        // The output is gone, or was never ready: there is nobody left to tell.
      }
    },
  };
}
