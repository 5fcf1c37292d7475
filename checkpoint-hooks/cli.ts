/** `sluice`: one command line, one exit code. The commands are in commands/. */
import { CommanderError } from 'commander';
import { Context, EXIT, describeError } from './commands/context.ts';
import { buildProgram } from './program.ts';
import { Refused } from './client.ts';

async function main(argv: readonly string[]): Promise<number> {
  const context = new Context();
  const program = buildProgram(context);
  try {
    await program.parseAsync([...argv]);
    return context.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    const { exitCode, lines } = describeError(error);
    if (error instanceof Refused && program.opts<{ json?: boolean }>().json === true) {
      const { code, message, group, generation, open } = error;
      process.stderr.write(`${JSON.stringify({ code, message, group, generation, open })}\n`);
    } else process.stderr.write(`sluice: ${lines.join('\n  ')}\n`);
    return exitCode;
  } finally {
    await context.close();
  }
}

// A reader that has seen enough (`sluice events | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.done);
  throw error;
});
// A token among the arguments goes from the process list before anything else happens.
const argv = [...process.argv];
if (argv.some((word) => word.startsWith('--tok'))) process.title = 'sluice';
process.exitCode = await main(argv);
