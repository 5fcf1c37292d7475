/** What is used of protobufjs (D86). */
export { configure, Root, util } from 'protobufjs/light.js';
