/**
 * Who is told of events besides those who follow them: the hook command and the webhooks of the
 * settings, from files to a running hooks child. What is wrong with the files is said at start.
 */
import type { Logger } from 'pino';
import { ConfigError } from './config.ts';
import type { Config, HooksConfig } from './config.ts';
import type { EventHub } from './api/events.ts';
import { HookLink } from './hooks/link.ts';
import type { HookSettings } from './hooks/protocol.ts';
import { checkProgram, readPublic, readSecret } from './trust.ts';

const SECRET_CHARACTERS_MIN = 16;

export function readHooks({ command, urls, secret, ca, timeoutMs }: HooksConfig, host: string): HookSettings {
  if (command !== undefined) checkProgram('hooks.command', command);
  const text = secret === undefined ? undefined : readSecret('hooks.webhook.secret', secret).trim();
  if (text !== undefined && text.length < SECRET_CHARACTERS_MIN) {
    throw new ConfigError(`hooks.webhook.secret ${secret} is shorter than ${SECRET_CHARACTERS_MIN} characters; make one with: openssl rand -hex 32`);
  }
  return { host, command, urls, secret: text, ca: ca === undefined ? undefined : readPublic('hooks.webhook.ca', ca), timeoutMs };
}

export interface Told {
  readonly link: HookLink;
  /** Reads secret and CA again. Throws, and goes on with the old ones, where they are not right. */
  again(): void;
  stop(): Promise<void>;
}

/** undefined where nobody is to be told. */
export function tell({ hooks, host }: Config, events: EventHub, log: Logger): Told | undefined {
  if (hooks === undefined) return undefined;
  const link = new HookLink(readHooks(hooks, host), hooks.events, (fields, message) => log.warn(fields, message));
  const deaf = events.subscribe(({ id, event }) => link.event(id, event));
  return {
    link,
    again: () => link.set(readHooks(hooks, host)),
    stop: async () => {
      deaf();
      await link.stop();
    },
  };
}
