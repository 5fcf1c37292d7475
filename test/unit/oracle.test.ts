/** The outside oracle judged by made-up clocks: it accuses what leaked and nothing else. */
import { describe, expect, it } from 'vitest';
import { Oracle } from '../../bench/bed/oracle.ts';

/** cut(1) over, frame sent: its floor is epoch 2. */
function afterFirstCut(): Oracle {
  const oracle = new Oracle();
  oracle.begin('cut', 1, 100)(true);
  oracle.sent('f', 'a', 200);
  return oracle;
}

describe('oracle: output commit', () => {
  it('accuses a frame seen with no commit at all', () => {
    const oracle = afterFirstCut();
    oracle.seen('f', 250);
    expect(oracle.count().leaked).toBe(1);
    expect(oracle.leaks).toEqual([{ key: 'f', sentUs: 200, seenUs: 250, allowedUs: undefined }]);
  });

  it('accuses a frame seen after the commit of an earlier epoch only', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 1, 210)(true);
    oracle.seen('f', 250);
    expect(oracle.count().leaked).toBe(1);
  });

  it('accuses a frame seen a microsecond before its commit began, judged later', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 2, 300)(true);
    oracle.seen('f', 299);
    expect(oracle.count().leaked).toBe(1);
  });

  it('allows a frame from the begin of its commit on, answered or not', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 2, 300);
    oracle.seen('f', 300);
    expect(oracle.count()).toMatchObject({ seen: 1, leaked: 0 });
  });

  it('allows a frame sent before the cut was answered with the earlier epoch', () => {
    const oracle = new Oracle();
    const answered = oracle.begin('cut', 1, 100);
    oracle.sent('f', 'a', 110);
    answered(true);
    oracle.begin('commit', 1, 200)(true);
    oracle.seen('f', 201);
    expect(oracle.count().leaked).toBe(0);
  });

  it('takes the excuse of a refused commit back', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 2, 210)(false);
    oracle.seen('f', 250);
    expect(oracle.count().leaked).toBe(1);
  });

  it('counts a refused cut for nothing', () => {
    const oracle = new Oracle();
    oracle.begin('cut', 1, 100)(false);
    oracle.sent('f', 'a', 200);
    oracle.begin('commit', 1, 210)(true);
    oracle.seen('f', 250);
    expect(oracle.count().leaked).toBe(0);
  });

  it("raises only the member's own floor with a member's cut", () => {
    const oracle = new Oracle();
    oracle.begin('cut', 1, 100, 'a')(true);
    oracle.sent('a1', 'a', 200);
    oracle.sent('b1', 'b', 200);
    oracle.begin('commit', 1, 300)(true);
    oracle.seen('a1', 310);
    oracle.seen('b1', 310);
    expect(oracle.leaks.map((leak) => leak.key)).toEqual(['a1']);
  });

  it('knows the epoch after a restart from the daemon', () => {
    const oracle = new Oracle();
    oracle.opened(5);
    oracle.sent('f', 'a', 200);
    oracle.begin('commit', 4, 210)(true);
    oracle.seen('f', 250);
    expect(oracle.count().leaked).toBe(1);
  });
});

describe('oracle: rollback', () => {
  it('accuses a later frame of the old execution even after commits of the new one', () => {
    const oracle = afterFirstCut();
    oracle.begin('rollback', 1, 300)(true);
    oracle.begin('commit', 9, 400)(true);
    oracle.seen('f', 410);
    expect(oracle.count().leaked).toBe(1);
  });

  it('allows what the rollback itself lets out', () => {
    const oracle = new Oracle();
    oracle.sent('f', 'a', 50);
    oracle.begin('cut', 1, 100)(true);
    oracle.begin('rollback', 1, 300)(true);
    oracle.seen('f', 310);
    expect(oracle.count().leaked).toBe(0);
  });

  it('wants a commit of the new execution for its frames', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 1, 250)(true);
    oracle.begin('rollback', 1, 300)(true);
    oracle.sent('g', 'a', 400);
    oracle.seen('g', 410);
    expect(oracle.count().leaked).toBe(1);
    oracle.sent('h', 'a', 420);
    oracle.begin('commit', 2, 500)(true);
    oracle.seen('h', 510);
    expect(oracle.count().leaked).toBe(1);
  });

  it('allows a frame sent during the rollback with either execution', () => {
    const oracle = afterFirstCut();
    const answered = oracle.begin('rollback', 1, 300);
    oracle.sent('g', 'a', 310);
    answered(true);
    oracle.begin('commit', 2, 500)(true);
    oracle.seen('g', 510);
    expect(oracle.count().leaked).toBe(0);
  });
});

describe('oracle: losses and duplicates', () => {
  it('counts as lost only what was surely committed and never came', () => {
    const oracle = new Oracle();
    oracle.sent('f', 'a', 50);
    oracle.begin('cut', 1, 100)(true);
    expect(oracle.count()).toMatchObject({ held: 1, lost: 0 });
    oracle.begin('commit', 1, 200)(true);
    expect(oracle.count()).toMatchObject({ held: 0, lost: 1 });
    oracle.seen('f', 210);
    expect(oracle.count()).toMatchObject({ held: 0, lost: 0, seen: 1 });
  });

  it('does not call lost what was sent while its cut was under way', () => {
    const oracle = new Oracle();
    const answered = oracle.begin('cut', 1, 100);
    oracle.sent('f', 'a', 110);
    answered(true);
    oracle.begin('commit', 1, 200)(true);
    expect(oracle.count()).toMatchObject({ held: 1, lost: 0 });
  });

  it('does not call lost what a rollback discarded', () => {
    const oracle = afterFirstCut();
    oracle.begin('rollback', 1, 300)(true);
    expect(oracle.count()).toMatchObject({ held: 1, lost: 0 });
  });

  it('counts a key seen twice, ignores a stranger, refuses two of a name under way', () => {
    const oracle = afterFirstCut();
    oracle.begin('commit', 2, 300)(true);
    oracle.seen('f', 310);
    oracle.seen('f', 320);
    oracle.seen('stranger', 320);
    expect(oracle.count()).toMatchObject({ sent: 1, seen: 1, duplicates: 1, leaked: 0 });
    oracle.sent('g', 'a', 330);
    expect(() => oracle.sent('g', 'a', 331)).toThrow(/two frames under way/);
  });
});

describe('oracle: frames inside the group', () => {
  it('are judged by the same rule when they are seen outside, and counted apart', () => {
    const oracle = new Oracle();
    oracle.begin('cut', 1, 100)(true);
    oracle.sentInside('i', 'a', 200);
    oracle.sentInside('j', 'a', 200);
    oracle.seenInside('i', 250);
    expect(oracle.count()).toMatchObject({ sent: 0, held: 0, lost: 0, strays: 1, leaked: 1 });
    oracle.begin('commit', 2, 300)(true);
    oracle.seenInside('j', 310);
    expect(oracle.count()).toMatchObject({ strays: 2, leaked: 1 });
  });

  it('are accused when nothing is known of them', () => {
    const oracle = new Oracle();
    oracle.seenInside('never told', 250);
    expect(oracle.count().leaked).toBe(1);
  });

  it('are forgotten after a while, so that memory stays flat', () => {
    const oracle = new Oracle();
    oracle.begin('commit', 1, 0)(true);
    oracle.sentInside('old', 'a', 0);
    oracle.sentInside('new', 'a', 11e6);
    oracle.seenInside('new', 12e6);
    expect(oracle.count().leaked).toBe(0);
    oracle.seenInside('old', 12e6);
    expect(oracle.count().leaked).toBe(1);
  });
});
