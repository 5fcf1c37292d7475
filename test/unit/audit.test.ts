/**
 * deploy/audit.sh with a registry of the test's own: a finding, none, and no audit at all are three
 * answers. npm itself asks, so the address and the shape are the registry's.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const fault = (severity: string): object => ({ yaml: [{ id: 1, url: 'https://example.invalid/1', title: 'a fault', severity, vulnerable_versions: '<999', cwe: [], cvss: { score: 0 } }] });

interface Asked {
  readonly code: number | null;
  readonly said: string;
  readonly paths: readonly string[];
}
async function audit(status: number, body: object): Promise<Asked> {
  const paths: string[] = [];
  const registry = createServer((request, reply) => {
    paths.push(`${request.method} ${request.url}`);
    request.resume().on('end', () => {
      const isAudit = request.method === 'POST';
      reply.writeHead(isAudit ? status : 404, { 'content-type': 'application/json' }).end(JSON.stringify(isAudit ? body : {}));
    });
  });
  await new Promise<void>((listens) => void registry.listen(0, '127.0.0.1', listens));
  const cache = mkdtempSync(join(tmpdir(), 'sl-audit-'));
  const { port } = registry.address() as AddressInfo;
  try {
    return await new Promise((done) => {
      const child = spawn(join(root, 'deploy/audit.sh'), { env: { ...process.env, npm_config_registry: `http://127.0.0.1:${port}/`, npm_config_cache: cache } });
      let said = '';
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
      child.once('close', (code) => done({ code, said, paths }));
    });
  } finally {
    registry.close();
    rmSync(cache, { recursive: true });
  }
}

describe('the audit of the npm packages', () => {
  test('no finding: exit 0, and how many packages were looked at', async () => {
    const { code, said, paths } = await audit(200, {});
    expect(said).toMatch(/^audit: [1-9]\d* packages, 0 with known faults, of these 0 high, 0 critical$/m);
    expect(code).toBe(0);
    expect(paths).toContain('POST /-/npm/v1/security/advisories/bulk');
  }, 60_000);

  test.each([['critical', 1], ['high', 1], ['low', 0]] as const)('a %s finding is named: exit %i', async (severity, wanted) => {
    const { code, said } = await audit(200, fault(severity));
    expect(said).toMatch(new RegExp(`^  ${severity}  yaml\\b`, 'm'));
    expect(code).toBe(wanted);
  }, 60_000);

  test.each([405, 503])('a registry that answers %i: nothing was audited, exit 2, never 0', async (status) => {
    const { code, said } = await audit(status, { error: 'no' });
    expect(said).toMatch(new RegExp(`^audit: NOTHING WAS AUDITED: .*${status}`, 'm'));
    expect(said).not.toMatch(/known faults/);
    expect(code).toBe(2);
  }, 60_000);
});
