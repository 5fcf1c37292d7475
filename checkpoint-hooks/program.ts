/** The whole command line as a value; cli.ts runs it. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { SOCKET_DEFAULT } from './client.ts';
import { addBridge } from './commands/bridge.ts';
import { duration } from './commands/context.ts';
import type { Context } from './commands/context.ts';
import { addDoctor } from './commands/doctor.ts';
import { addEngine } from './commands/engine.ts';
import { addEpoch } from './commands/epoch.ts';
import { addGroup, addMember } from './commands/group.ts';
import { addLocal } from './commands/local.ts';
import { addTop } from './commands/top.ts';
import { addUi } from './commands/ui.ts';
import { addWatch } from './commands/watch.ts';

/** package.json stands above this file, one level up in the source and two in dist. */
function version(): string {
  for (const path of ['../package.json', '../../package.json']) {
    try {
      const { name, version: found } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { name?: string; version?: string };
      if (name === 'sluice' && found !== undefined) return found;
    } catch {
      continue;
    }
  }
  throw new Error('package.json is missing beside the program');
}

export function buildProgram(context: Context): Command {
  const program = new Command('sluice')
    .description('holds the output of a protected group of VMs until the checkpoint that covers it is safe')
    .version(version())
    .option('--socket <path>', `control socket of sluiced (env SLUICE_CONTROL_SOCKET; default ${SOCKET_DEFAULT})`)
    .option('--url <url>', 'reach sluiced by TCP instead, as https://HOST:PORT')
    .option('--token <token>', 'bearer token (env SLUICE_TOKEN); others of this machine may see it for a moment, so rather:')
    .option('--token-file <file>', 'file with the bearer token, readable by you alone (env SLUICE_TOKEN_FILE)')
    .option('--ca <file>', 'CA of the daemon\'s certificate, with --url')
    .option('--cert <file>', 'own certificate, with --url')
    .option('--key <file>', 'key of the own certificate, with --url')
    .option('--connect-timeout <time>', 'wait so long, as 10s, for a daemon that is just starting; not at all when left out', duration)
    .option('--json', 'print replies as they are')
    .showHelpAfterError('(add --help for what is expected)')
    .showSuggestionAfterError()
    .exitOverride()
    .hook('preAction', (_program, command) => context.maybeWait(command))
    .addHelpText('after', '\nExample:\n  $ sluice group apply -f web.yaml && sluice protect web && sluice engine ticker web\n\nExit codes: 0 done, 1 refused or failed, 2 bad usage, 3 daemon not reachable');
  addGroup(program, context);
  addMember(program, context);
  addEpoch(program, context);
  addWatch(program, context);
  addTop(program, context);
  addUi(program, context);
  addBridge(program, context);
  addDoctor(program, context);
  addLocal(program, context);
  addEngine(program, context);
  return program;
}
