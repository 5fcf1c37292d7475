/** Reading sluiced's /metrics: the sum of a counter over all its labels. */
import type { Api } from './api.ts';

export class Metrics {
  readonly #text: string;
  private constructor(text: string) {
    this.#text = text;
  }

  static async read(api: Api): Promise<Metrics> {
    const answer = await api.call('GET', '/metrics');
    if (answer.status !== 200 || typeof answer.body !== 'string') throw new Error(`/metrics answered ${answer.status}`);
    return new Metrics(answer.body);
  }

  /** Throws where there is no such metric: a renamed one must not read as 0. */
  sum(name: string, label?: string): number {
    let sum = 0;
    let found = false;
    for (const line of this.#text.split('\n')) {
      if (!line.startsWith(name) || !/[ {]/.test(line.charAt(name.length))) continue;
      found = true;
      if (label === undefined || line.includes(label)) sum += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    if (!found && !this.#text.includes(`# TYPE ${name} `)) throw new Error(`no metric ${name}`);
    return sum;
  }
}
