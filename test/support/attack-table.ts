/** What was tried against the API, how often, and what happened: counted by the tests, printed and kept as out/attacks.md. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../../bench/bed/daemon.ts';

export class AttackTable {
  readonly #rows = new Map<string, Map<string, number>>();

  /** `outcome`: a status, or what else happened, a word or two. */
  saw(attack: string, outcome: number | string, count = 1): void {
    const row = this.#rows.get(attack) ?? new Map<string, number>();
    this.#rows.set(attack, row);
    row.set(String(outcome), (row.get(String(outcome)) ?? 0) + count);
  }

  text(): string {
    const rows = [...this.#rows].map(([attack, outcomes]) => `| ${attack} | ${[...outcomes.values()].reduce((sum, count) => sum + count, 0)} | ${[...outcomes].map(([outcome, count]) => `${outcome}: ${count}`).join(', ')} |`);
    return ['| tried | times | what happened |', '|---|---|---|', ...rows, ''].join('\n');
  }

  write(): void {
    mkdirSync(join(repositoryRoot(), 'out'), { recursive: true });
    writeFileSync(join(repositoryRoot(), 'out/attacks.md'), this.text());
    console.log(this.text());
  }
}
