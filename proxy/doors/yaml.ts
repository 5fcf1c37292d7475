/** What is used of yaml (D86). */
export { isMap, isScalar, isSeq, LineCounter, parse, parseDocument } from 'yaml';
