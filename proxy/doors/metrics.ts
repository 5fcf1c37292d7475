/** What is used of prom-client (D86). */
export { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
