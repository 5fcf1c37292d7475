/** The oracle of VM groups: what it must call unexplained, and what it must not. */
import { describe, expect, test } from 'vitest';
import { explain, type WireFrame } from '../../bench/vm/explain.ts';
import type { Command } from '../../bench/vm/relay.ts';

const command = (verb: string, epoch: number, beginUs: number, more: Partial<Command> = {}): Command => ({
  verb, epoch, generation: 1, beginUs, endUs: beginUs + 1, accepted: true, ...more,
});
const frame = (key: string, atUs: number, announcement = false): WireFrame => ({ key, text: key, atUs, announcement });
const protect = command('protect', 0, 10);
const unexplained = (sent: WireFrame[], seen: WireFrame[], commands: Command[]): string[] =>
  explain(sent, seen, commands).unexplained.map(({ key }) => key);

describe('a frame is explained', () => {
  test('sent before protection', () => {
    expect(unexplained([frame('a', 5)], [frame('a', 6)], [protect])).toEqual([]);
  });
  test('by the commit of its epoch, or of a later one', () => {
    const commands = [protect, command('cut', 1, 20), command('cut', 2, 40), command('commit', 2, 50)];
    expect(unexplained([frame('a', 15), frame('b', 30)], [frame('a', 51), frame('b', 52)], commands)).toEqual([]);
  });
  test('by a commit that was never answered: it may have worked', () => {
    const commands = [protect, command('cut', 1, 20), command('commit', 1, 30, { endUs: undefined, accepted: false })];
    expect(unexplained([frame('a', 15)], [frame('a', 31)], commands)).toEqual([]);
  });
  test('by the takeover, for what is of the epoch it goes on from', () => {
    const commands = [protect, command('cut', 1, 20), command('takeover', 1, 40)];
    expect(unexplained([frame('a', 15)], [frame('a', 41)], commands)).toEqual([]);
  });
  test('when a restored guest sends the same bytes again and that is committed', () => {
    const commands = [protect, command('cut', 1, 20), command('takeover', 1, 40), command('cut', 2, 60), command('commit', 2, 70)];
    expect(unexplained([frame('a', 30), frame('a', 50)], [frame('a', 71)], commands)).toEqual([]);
  });
  test('as an announcement, and counted apart, also when a guest sends the same bytes later', () => {
    expect(explain([frame('a', 60, true)], [frame('a', 50, true)], [protect])).toMatchObject({ announcements: 1, unexplained: [] });
  });
});

test('a frame is spent that a commit let out and nobody saw before the takeover, by the dead guest\'s port', () => {
  const commands = [protect, command('cut', 1, 20), command('commit', 1, 30), command('cut', 2, 40), command('takeover', 2, 60)];
  const spent = (sent: WireFrame[], seen: WireFrame[], by: Command[] = commands): number => explain(sent, seen, by).spent;
  expect(spent([frame('a', 15)], [frame('a', 31)])).toBe(0);
  expect(spent([frame('a', 15)], [])).toBe(1);
  expect(spent([frame('a', 5)], [])).toBe(0); // before protection nobody let anything out
  expect(spent([frame('a', 15)], [frame('a', 90)])).toBe(1); // said again by the new side
  expect(spent([frame('a', 35)], [])).toBe(0); // its commit was the takeover, at the new port
  expect(spent([frame('a', 15, true)], [])).toBe(0);
  expect(spent([frame('a', 15)], [], commands.slice(0, -1))).toBe(0); // nobody died: it is only late
  expect(spent([frame('a', 15)], [], [protect, command('cut', 1, 20), command('commit', 1, 30, { endUs: undefined, accepted: false }), command('takeover', 1, 60)])).toBe(0);
});

describe('a frame is unexplained', () => {
  test('seen before its commit was begun', () => {
    const commands = [protect, command('cut', 1, 20), command('commit', 1, 30)];
    expect(unexplained([frame('a', 15)], [frame('a', 29)], commands)).toEqual(['a']);
  });
  test('of a later epoch than the last commit', () => {
    const commands = [protect, command('cut', 1, 20), command('commit', 1, 30)];
    expect(unexplained([frame('a', 25)], [frame('a', 40)], commands)).toEqual(['a']);
  });
  test('after a commit that was refused', () => {
    const commands = [protect, command('cut', 1, 20), command('commit', 1, 30, { accepted: false })];
    expect(unexplained([frame('a', 15)], [frame('a', 40)], commands)).toEqual(['a']);
  });
  test('of what a takeover discarded, also when the new execution commits the same number', () => {
    const commands = [protect, command('cut', 1, 20), command('takeover', 1, 40), command('cut', 2, 60), command('commit', 2, 70)];
    expect(unexplained([frame('a', 30)], [frame('a', 71)], commands)).toEqual(['a']);
  });
  test('that no guest has sent, or only later', () => {
    const commands = [protect, command('cut', 1, 20), command('commit', 1, 30)];
    expect(unexplained([frame('b', 45)], [frame('a', 40), frame('b', 40)], commands)).toEqual(['a', 'b']);
  });
});
