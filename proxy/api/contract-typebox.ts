/**
 * What is used of typebox, through one door. The package is 683 small modules, and to read them took half
 * of the time a program here needs to start; the build puts them into this module's file (Makefile, DOOR).
 */
export { default as Type } from 'typebox';
export { Compile } from 'typebox/compile';
export { Value } from 'typebox/value';
