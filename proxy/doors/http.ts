/** What is used of fastify and its plugins (D86). */
export { default as rateLimit } from '@fastify/rate-limit';
export { default as swagger } from '@fastify/swagger';
export { default as fastify } from 'fastify';
