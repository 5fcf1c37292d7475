/** `sluice ui`: the dashboard in a browser on this machine, until Ctrl-C. */
import type { Command } from 'commander';
import { Transport } from '../transport.ts';
import { startUiProxy } from '../ui-proxy.ts';
import { Failure, targetOf, wholeNumber } from './context.ts';
import type { Context, GlobalOptions } from './context.ts';
import { untilSignal } from './running.ts';

async function serve(context: Context, port: number, command: Command): Promise<void> {
  const transport = new Transport(targetOf(command.optsWithGlobals<GlobalOptions>()));
  try {
    const page = await transport.open('GET', '/ui/');
    await page.body.dump();
    if (page.statusCode === 404) throw new Failure(`the daemon at ${transport.place} serves no dashboard: over TCP it needs control.tcp.ui: on in its configuration`);
    if (page.statusCode !== 200) throw await transport.refusal(page);
    const proxy = await startUiProxy(transport, port).catch((error: NodeJS.ErrnoException) => {
      throw new Failure(`port ${port} of 127.0.0.1 can't be listened on (${error.code ?? error.message}); leave --port out for a free one`);
    });
    context.show(command, { url: proxy.url }, () => `The dashboard, for one browser on this machine:\n\n  ${proxy.url}\n\nCtrl-C ends it.`);
    await untilSignal({ first: '', isShown: false, text: () => '' }, (signal) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())));
    await proxy.close();
  } finally {
    await transport.close();
  }
}

export function addUi(program: Command, context: Context): void {
  program
    .command('ui')
    .description('the dashboard in a browser: serves it on 127.0.0.1 until Ctrl-C, for whoever has the address printed')
    .option('--port <port>', 'port on 127.0.0.1; a free one if left out', wholeNumber, 0)
    .addHelpText('after', '\nExample:\n  $ sluice ui\n  $ ssh -L 8080:127.0.0.1:8080 host sluice ui --port 8080')
    .action((options: { port: number }, command: Command) => serve(context, options.port, command));
}
