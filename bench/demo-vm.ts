/**
 * The demonstration with real VMs: a group dies, twice, and its client never notices.
 *
 *   client ═ uplink ─ br0 + sluiced ─ front ─ asks ─ store      each answer is the last number plus one
 *
 *   serve ─ protect ─ kill -9 of both ─ the other sides go on ─ protected again ─ kill -9 of those ─ on
 *
 * Prints the timeline as it happens, then the figures; writes out/demo-vm.json. Exit 1 where the
 * client was answered wrong, lost its connection, or the guests disagree. Leaves nothing behind.
 */
import { abandonOnSignal } from './bed/abandon.ts';
import { failover, faults, type Failover } from './vm/failover.ts';
import { mustBeRoot, spread, spreadText, tableText, tenth, writeOut } from './vm/report.ts';

const INTERVAL_MS = 25;

function outcome(run: Failover): { readonly json: object; readonly rows: readonly (readonly [string, string])[] } {
  const stopMs = spread(run.stopsMs);
  const [plainMs, protectedMs] = [spread(run.plainMs), spread(run.protectedMs)];
  const deaths = run.deaths.map(({ killToRunningMs, gapMs }) => ({ killToRunningMs: tenth(killToRunningMs), gapMs: tenth(gapMs) }));
  const wrong = run.account.wrong.length;
  const json = {
    vms: 2, ramMib: 72, intervalMs: INTERVAL_MS, checkpoints: run.checkpoints, stopMs, deaths,
    killToRunningMs: Math.max(...deaths.map((death) => death.killToRunningMs)), longestGapMs: Math.max(...deaths.map(({ gapMs }) => gapMs)),
    answers: run.account.answers, wrong, connectionKept: run.account.broken === undefined,
    frontCount: run.frontCount, storeCount: run.storeCount, roundTripMs: { plain: plainMs, protected: protectedMs },
  };
  const each = (of: (death: { killToRunningMs: number; gapMs: number }) => number): string => deaths.map((death) => `${of(death)} ms`).join(', then ');
  return {
    json,
    rows: [
      ['checkpoints of the group, 72 MiB a VM', `${run.checkpoints}`],
      ['the group stood still, per checkpoint', spreadText(stopMs)],
      ['kill -9 to all other sides running', each((death) => death.killToRunningMs)],
      ["the client's longest gap", each((death) => death.gapMs)],
      ["the client's round trip", `plain p50 ${plainMs.p50} ms, protected p50 ${protectedMs.p50} ms`],
      ['answers, all over one TCP connection', `${run.account.answers}`],
      ['wrong answers', `${wrong}`],
      ['the count in front and in store', `${run.frontCount} and ${run.storeCount}`],
    ],
  };
}

async function main(): Promise<void> {
  mustBeRoot('the demonstration');
  abandonOnSignal();
  console.log('two real VMs (QEMU, emulated) on a Linux bridge behind Sluice; a client that counts through them\n');
  const began = performance.now();
  const say = (text: string): void => console.log(`  ${((performance.now() - began) / 1e3).toFixed(2).padStart(6)} s  ${text}`);
  const run = await failover({ guests: 2, moment: 'running', at: Math.random(), intervalMs: INTERVAL_MS, deaths: 2, oracle: false, say });
  const { json, rows } = outcome(run);
  writeOut('demo-vm.json', json);
  console.log(`\n${tableText(rows)}\n\n  out/demo-vm.json`);
  const wrong = faults(run);
  if (wrong.length > 0) throw new Error(wrong.join('; '));
}

await main().catch((error: unknown) => {
  console.error(`demo-vm: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
