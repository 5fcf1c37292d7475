import type { Reporter, TestModule } from 'vitest/node';

/**
 * Ends the run with one plain line, `N passed, N failed[, N skipped]`, that scripts can read. A
 * file that could not be collected counts as one failure. As root there is no reason left to skip
 * a privileged test, so a skip fails the run.
 */
export default class PlainReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    const count = { passed: 0, failed: unhandled.length, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length > 0) count.failed += 1;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') count.passed += 1;
        else if (state === 'failed') count.failed += 1;
        else count.skipped += 1;
      }
    }
    const strict = process.getuid?.() === 0 && process.env['SLUICE_ALLOW_SKIP'] === undefined;
    if (count.skipped > 0 && strict) {
      console.log(`${count.skipped} skipped as root: a skip is a failure here`);
      count.failed += count.skipped;
      count.skipped = 0;
    }
    if (count.failed > 0 || count.passed === 0) process.exitCode = 1;
    const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : '';
    console.log(`\n${count.passed} passed, ${count.failed} failed${skipped}`);
  }
}
