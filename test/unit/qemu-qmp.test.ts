import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Machine } from '../../checkpoint-hooks/engines/qemu/machine.ts';
import { Qmp, QmpClosed, QmpRefused } from '../../checkpoint-hooks/engines/qemu/qmp.ts';

/** The other end of the socket, as scripted by a test: the protocol's edges that a QEMU that works never shows. */
let directory: string;
let server: Server;
let path: string;
let peer: Socket;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sl-qmp-'));
  path = join(directory, 'qmp');
});
afterEach(() => {
  server.close();
  peer.destroy();
  rmSync(directory, { recursive: true, force: true });
});

interface Asked { readonly execute: string; readonly id: number; readonly arguments?: { readonly uri?: string } }
/** Greets, accepts the capabilities, hands every other question to `answer`. */
async function serve(answer: (asked: Asked, send: (text: string) => void) => void, greeting = '{"QMP": {}}\r\n'): Promise<void> {
  server = createServer((socket) => {
    peer = socket;
    const send = (text: string): void => void socket.write(text);
    send(greeting);
    socket.on('error', () => undefined);
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.trim().split('\n')) {
        const asked = JSON.parse(line) as Asked;
        if (asked.execute === 'qmp_capabilities') send(`{"return": {}, "id": ${asked.id}}\r\n`);
        else answer(asked, send);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

describe('QMP', () => {
  test('answers are matched by id, whatever their order and however they are cut up', async () => {
    const seen: Asked[] = [];
    await serve((asked, send) => {
      seen.push(asked);
      if (seen.length < 2) return;
      const [first, second] = seen;
      const text = `{"event":"STOP","data":{"a":1}}\n{"return":"two","id":${second?.id}}\n{"return":"one","id":${first?.id}}\n`;
      for (const piece of text.match(/.{1,7}\n?/gs) ?? []) send(piece);
    });
    const qmp = await Qmp.connect(path);
    const events: string[] = [];
    qmp.onEvent(({ event }) => events.push(event));
    expect(await Promise.all([qmp.ask('one'), qmp.ask('two')])).toEqual(['one', 'two']);
    expect(events).toEqual(['STOP']);
    qmp.close();
  });

  test('a refusal names the command and leaves the connection usable', async () => {
    await serve(({ execute, id }, send) => send(execute === 'bad' ? `{"error":{"class":"GenericError","desc":"no such thing"},"id":${id}}\n` : `{"return":1,"id":${id}}\n`));
    const qmp = await Qmp.connect(path);
    await expect(qmp.ask('bad')).rejects.toThrow(new QmpRefused('bad: no such thing'));
    expect(await qmp.ask('good')).toBe(1);
    qmp.close();
  });

  test('the end of the socket answers everyone, and closed says so', async () => {
    await serve(({ execute }) => { if (execute === 'second') peer.destroy(); });
    const qmp = await Qmp.connect(path);
    const answers = await Promise.allSettled([qmp.ask('first'), qmp.ask('second')]);
    for (const answer of answers) expect(answer).toMatchObject({ status: 'rejected', reason: expect.any(QmpClosed) as QmpClosed });
    expect(await qmp.closed).toMatch(/closed/);
    await expect(qmp.ask('third')).rejects.toThrow(QmpClosed);
  });

  test('silence ends at the deadline and gives the socket up', async () => {
    await serve(() => undefined);
    const qmp = await Qmp.connect(path);
    await expect(qmp.ask('anything', {}, 20)).rejects.toThrow(/no answer to anything within 20 ms/);
    expect(qmp.isOpen).toBe(false);
  });

  test.each([
    ['nobody there', undefined, /ENOENT/],
    ['no greeting', '', /no greeting/],
    ['no JSON', 'hello\n', /JSON/],
    ['a line without end', 'x'.repeat(5 << 20), /longer/],
  ])('no connection: %s', async (_what, greeting, why) => {
    if (greeting !== undefined) await serve(() => undefined, greeting);
    await expect(Qmp.connect(path, greeting === '' ? 300 : 20_000)).rejects.toThrow(why);
  });
});

/** Gives its state to whoever asks for it; one that is `mute` ends while it should. */
async function serveStates(mute: () => boolean): Promise<Machine> {
  await serve(({ execute, id, arguments: { uri } = {} }, send) => {
    send(`{"return":{},"id":${id}}\n`);
    if (execute !== 'migrate') return;
    if (mute()) peer.destroy();
    else createConnection(uri?.replace('unix:', '') ?? '').end('state', () => send('{"event":"MIGRATION","data":{"status":"completed"}}\n'));
  });
  const machine = await Machine.attach({ qmp: path, pidFile: '', ram: '', ports: [], argv: [] });
  await machine.prepareSave();
  return machine;
}

describe('a machine', () => {
  test('saves its state as often as it is asked, and keeps nothing of who waited for its end meanwhile', async () => {
    let ends = false;
    const machine = await serveStates(() => ends);
    const waits = vi.spyOn(machine.qmp.closed, 'then');
    for (let i = 0; i < 3; i += 1) expect(Buffer.from(await machine.saveState()).toString()).toBe('state');
    expect(waits).not.toHaveBeenCalled();
    ends = true;
    await expect(machine.saveState()).rejects.toThrow(QmpClosed);
    await expect(machine.saveState()).rejects.toThrow(QmpClosed);
    machine.close();
  });
});
