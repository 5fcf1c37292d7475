#!/usr/bin/env bash
# Asks the npm registry for known faults of what run time uses. Exit 0: it answered, and none is high
# or critical. 1: some are. 2: nothing was audited, with what npm said: that is not a clean bill.
set -uo pipefail
cd "$(dirname "$0")/.."
said=$(npm audit --omit=dev --json --fetch-retries=0 --fetch-timeout=30000 2>/dev/null)
exec node - "$said" <<'JS'
const parsed = (() => { try { return JSON.parse(process.argv[2]); } catch { return {}; } })();
const { vulnerabilities, dependencies } = parsed.metadata ?? {};
if (vulnerabilities === undefined || !(dependencies?.prod > 0)) {
  console.error(`audit: NOTHING WAS AUDITED: ${parsed.message ?? parsed.error?.summary ?? 'npm gave no answer'}`);
  process.exit(2);
}
const { total, high, critical } = vulnerabilities;
console.log(`audit: ${dependencies.prod} packages, ${total} with known faults, of these ${high} high, ${critical} critical`);
for (const { name, severity, range } of Object.values(parsed.vulnerabilities)) console.log(`  ${severity}  ${name} ${range}`.trimEnd());
process.exit(high + critical > 0 ? 1 : 0);
JS
