/** What is used of undici (D86). */
export { Agent, Pool, request } from 'undici';
