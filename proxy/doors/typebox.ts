/** What is used of typebox, 683 modules of it (D86). */
export { default as Type } from 'typebox';
export { Compile } from 'typebox/compile';
export { Value } from 'typebox/value';
