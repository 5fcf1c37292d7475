/** What is used of pino (D86). */
export { default as pino } from 'pino';
