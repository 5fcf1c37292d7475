/**
 * One waiter, many reasons to wake it: a time, a call of `wake`, whichever is first. A wake that
 * comes while nobody waits is remembered (once), so that no reason is lost between a check and the
 * wait that follows it.
 */
export class Wakeup {
  private waiting: (() => void) | undefined;
  private pending = false;

  wake(): void {
    if (this.waiting === undefined) this.pending = true;
    else this.waiting();
  }

  /** Resolves after `ms` (Infinity = only by wake), at once if it was woken since the last wait. */
  wait(ms: number): Promise<void> {
    if (this.waiting !== undefined) throw new Error('two waiters on one wakeup');
    if (this.pending || ms <= 0) {
      this.pending = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const timer = Number.isFinite(ms) ? setTimeout(() => this.waiting?.(), Math.ceil(ms)) : undefined;
      this.waiting = () => {
        clearTimeout(timer);
        this.waiting = undefined;
        resolve();
      };
    });
  }
}
