/**
 * One program of a request chain: a client or a tier, real TCP, one request under way a connection.
 *
 *   client ──ask──► tier 1 ──ask──► tier 2 ──ask × queries──► tier 3 (the store: answers at once)
 *          ◄─answer─        ◄─answer─        ◄───answers─────
 *
 *   node tier-child.js serve  <address> <port> [<next address> <queries>]
 *   node tier-child.js client <address> <port> <seconds> <pause ms>
 *
 * A line is a message. A tier answers a request after `queries` asks of the next tier, one after
 * the other, with the microseconds that took. The client pauses between two requests for a time
 * random up to `pause ms`, makes at least REQUESTS_MIN, and prints {"outsideUs":[…],"insideUs":[…]}.
 */
import { connect, createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { sleep } from '../bed/commands.ts';

const REQUESTS_MIN = 8;
const CONNECT_TRIES = 200;
/** A browser's get and a page's worth of answer: both fit one segment. */
const PADDING = 'x'.repeat(400);

const elapsedUs = (since: bigint): number => Number(process.hrtime.bigint() - since) / 1e3;

/** A connection that asks: one question under way. */
class Asker {
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  static async open(address: string, port: number): Promise<Asker> {
    for (let i = 0; ; i++) {
      const socket = connect({ host: address, port, noDelay: true });
      try {
        await once(socket, 'connect');
        return new Asker(socket);
      } catch (error) {
        if (i >= CONNECT_TRIES) throw error;
        await sleep(10);
      }
    }
  }

  async ask(): Promise<number> {
    this.#socket.write(`ask ${PADDING}\n`);
    const answer = await this.#answers.next();
    if (answer.done === true) throw new Error('the next tier is gone');
    return Number(answer.value.split(' ')[1]);
  }

  close(): void {
    this.#socket.destroy();
  }
}

async function serve(address: string, port: number, next: string | undefined, queries: number): Promise<void> {
  const asker = next === undefined ? undefined : await Asker.open(next, port);
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', () => {
      void answerTo(socket, asker, queries);
    });
  });
  server.listen(port, address);
  await once(server, 'listening');
  console.log('listening');
}

async function answerTo(socket: Socket, asker: Asker | undefined, queries: number): Promise<void> {
  const begin = process.hrtime.bigint();
  for (let i = 0; asker !== undefined && i < queries; i++) await asker.ask();
  socket.write(`answer ${elapsedUs(begin)} ${PADDING}\n`);
}

async function client(address: string, port: number, seconds: number, pauseMs: number): Promise<void> {
  const asker = await Asker.open(address, port);
  const outsideUs: number[] = [];
  const insideUs: number[] = [];
  await asker.ask(); // every connection of the chain has carried a request
  const began = process.hrtime.bigint();
  while (elapsedUs(began) < seconds * 1e6 || outsideUs.length < REQUESTS_MIN) {
    await sleep(Math.random() * pauseMs);
    const begin = process.hrtime.bigint();
    insideUs.push(await asker.ask());
    outsideUs.push(elapsedUs(begin));
  }
  asker.close();
  console.log(JSON.stringify({ outsideUs, insideUs }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [role = '', address = '', port = '', third, fourth] = process.argv.slice(2);
  if (role === 'serve') await serve(address, Number(port), third, Number(fourth ?? 1));
  else await client(address, Number(port), Number(third), Number(fourth));
}
