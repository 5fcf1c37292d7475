import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { resume } from '../../proxy/core/resume.ts';
import { step } from '../../proxy/core/step.ts';
import { colour, epoch, generation } from '../../proxy/core/types.ts';
import type { Effect, GroupState, HeldFate, Input } from '../../proxy/core/types.ts';
import { specOf } from './core-world.ts';

/**
 * Golden scenarios: blocks of one command, a line of dashes, and the trace it must leave. The
 * files are meant to be read. SLUICE_SCENARIOS=write writes down what happens instead.
 *
 *   apply a,b [acks] · protect [g] · cut e [member] · ack e [members] · commit e · rollback e
 *   takeover g e · unprotect held · join m · leave m [held] · delete · released colour · drained
 *   restart · a leading `g=N` gives another generation than the group's
 */
const dir = join(import.meta.dirname, 'scenarios');

function parse(state: GroupState | undefined, line: string): Input {
  const words = line.split(' ');
  const other = words[0]?.startsWith('g=') === true ? Number(words.shift()?.slice(2)) : undefined;
  const g = generation(other ?? state?.generation ?? 0);
  const [kind = '', one = '', two] = words;
  const e = epoch(Number(one));
  const held = (word: string | undefined): { held: HeldFate } | object => (word === 'release' || word === 'discard' ? { held: word } : {});
  const member = (name: string) => specOf([name]).members[0] ?? { name, nics: [] };
  switch (kind) {
    case 'apply': return { kind, spec: specOf(one.split(','), two === 'acks' ? 'acks' : 'explicit') };
    case 'protect': return one === '' ? { kind } : { kind, generation: generation(Number(one)) };
    case 'cut': return two === undefined ? { kind, generation: g, epoch: e } : { kind, generation: g, epoch: e, member: two };
    case 'ack': return two === undefined ? { kind, generation: g, epoch: e } : { kind, generation: g, epoch: e, members: two.split(',') };
    case 'commit':
    case 'rollback': return { kind, generation: g, epoch: e };
    case 'takeover': return { kind, generation: generation(Number(one)), epoch: epoch(Number(two)) };
    case 'unprotect': return { kind, generation: g, held: one === 'discard' ? 'discard' : 'release' };
    case 'join': return { kind, member: member(one) };
    case 'leave': return { kind, member: one, ...held(two) };
    case 'delete':
    case 'drained': return { kind };
    case 'released': return { kind, colour: colour(Number(one)) };
    default: throw new Error(`no such command: ${line}`);
  }
}

function told(effect: Effect): string {
  const { kind, ...rest } = effect;
  if (effect.kind === 'persist') return effect.durable ? 'persist, synced' : 'persist';
  if (effect.kind === 'emit') {
    const { type, ...about } = effect.event;
    return `emit ${type} ${Object.values(about).join(' ')}`.trim();
  }
  return [kind, ...Object.entries(rest).map(([name, value]) => `${name}=${String(value)}`)].join(' ');
}

function shown(state: GroupState | undefined): string {
  if (state === undefined) return '(none)';
  const { phase, released, committed, acked, sealed } = state;
  const members = state.members.map((m) => `${m.name}:${m.sealed}/${m.acked}${m.ready ? '' : ` joining at ${m.joinedAt}`}`).join(', ');
  return `${phase} g${state.generation}  released ${released} committed ${committed} acked ${acked} sealed ${sealed}  (${members})  base ${state.colourBase} newest ${state.colourNewest}`;
}

function run(text: string): string {
  let state: GroupState | undefined;
  const blocks = text.split(/\n\n+/).map((block) => block.split('\n').filter((line) => line !== ''));
  const out = blocks.filter((lines) => lines.length > 0).map((lines) => {
    const comments = lines.filter((line) => line.startsWith('#'));
    const command = lines.find((line) => !line.startsWith('#'));
    if (command === undefined) return comments.join('\n');
    const trace: string[] = [];
    if (command === 'restart' && state !== undefined) {
      const resumed = resume(JSON.parse(JSON.stringify(state)) as GroupState);
      state = resumed.state;
      trace.push(...resumed.effects.map(told));
    } else {
      const taken = step(state, parse(state, command));
      state = taken.state;
      const { reply } = taken;
      trace.push(reply.outcome === 'denied' ? `denied ${reply.denial.code}: ${reply.denial.message}` : reply.outcome, ...taken.effects.map(told));
    }
    return [...comments, command, '----', ...trace, shown(state)].join('\n');
  });
  return `${out.join('\n\n')}\n`;
}

const files = readdirSync(dir).filter((name) => name.endsWith('.txt'));

test('there are scenarios', () => {
  expect(files.length).toBeGreaterThanOrEqual(7);
});

test.each(files)('%s', (name) => {
  const path = join(dir, name);
  const text = readFileSync(path, 'utf8');
  const happened = run(text);
  if (process.env.SLUICE_SCENARIOS === 'write') writeFileSync(path, happened);
  else expect(happened).toBe(text);
});
